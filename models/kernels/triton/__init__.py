"""Kernels for CUDA devices, in Triton. Registered as operators of torch; they run where the package triton is.

An operator stands in one file with its fake, its gradient and how it is launched; the kernels that it launches stand
in another, `*_kernels.py`, which alone imports triton. Nothing here runs on a CPU.
"""

import importlib.util

LOWERINGS = ("eager", "compile")  # in which an operator of our own can stand


def refusal(lowering: str) -> str | None:
    """Why the formulation 'triton' cannot be arranged for a lowering here; None where it can."""
    if lowering not in LOWERINGS:
        return f"got formulation 'triton' for {lowering!r}, expected {' or '.join(LOWERINGS)}: no graph holds it"
    if importlib.util.find_spec("triton") is None:
        return "got formulation 'triton' without the package triton: pip install 'mixprof[triton]'"
    return None
