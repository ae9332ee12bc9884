"""Nouns of the suite and files that hold them. Importing this loads no torch."""
