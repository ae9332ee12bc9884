"""Exact costs as closed forms: derived from counts of the model itself, proven on others. No torch in here."""
