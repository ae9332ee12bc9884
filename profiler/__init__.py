"""Profile what a spatial mixer costs: cases in, records out. Importing this loads no torch."""
