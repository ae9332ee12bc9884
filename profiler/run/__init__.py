"""Runs of a sweep: clients of worker servers, rounds, the journal."""
