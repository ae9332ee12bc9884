"""Answers of a report as tables: ratios, exponents, crossovers, roofline, breakdown."""
