"""Answers of a report as Markdown."""
