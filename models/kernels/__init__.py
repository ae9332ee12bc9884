"""Kernels of our own, one folder for each language; nothing here is imported before it is used."""
