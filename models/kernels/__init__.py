"""Kernels of our own for mixers, by device."""
