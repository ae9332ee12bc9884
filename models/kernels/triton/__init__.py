"""Kernels for CUDA devices, in Triton. Registered as operators of torch; they run where the package triton is.

An operator stands in one file with its fake, its gradient and how it is launched; the kernels that it launches stand
in another, `*_kernels.py`, which alone imports triton. Nothing here runs on a CPU.
"""

import importlib.util


def is_installed() -> bool:
    """Whether there is a Triton to compile the kernels with."""
    return importlib.util.find_spec("triton") is not None
