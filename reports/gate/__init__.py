"""Verdicts of a gate, and files that other tools read them from."""
