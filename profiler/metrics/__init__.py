"""Metrics: what is measured or counted of a lowered case. One file each."""
