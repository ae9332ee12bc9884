"""What torch makes of this machine's CUDA devices."""

from __future__ import annotations

from mixprof.data.errors import first_line
from mixprof.data.messages import NoDevice
from mixprof.machine import cuda_driver


def no_cuda() -> NoDevice | None:
    """Why torch has no CUDA device here; None where it has one. Call it in a worker: it may touch CUDA."""
    import torch

    absent = cuda_driver.no_device()
    if absent is not None or torch.cuda.is_available():
        return absent
    if not torch.backends.cuda.is_built():
        return NoDevice(
            f"the driver offers a GPU, and torch {torch.__version__} is built without CUDA: install its CUDA build",
            failed=True,
        )
    try:
        torch.cuda.init()
    except RuntimeError as error:
        return NoDevice(f"the driver offers a GPU that torch {torch.__version__} cannot use: {first_line(error)}", True)
    return None
