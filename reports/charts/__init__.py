"""Answers of a report as figures."""
