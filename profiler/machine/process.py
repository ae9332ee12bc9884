"""What a worker process is pinned to: environment, threads, allocator, TF32, the current CUDA stream."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mixprof.data.errors import Unavailable, Unsupported
from mixprof.machine import quota, torch_cuda

if TYPE_CHECKING:
    import torch

CUDNN_FLAGS = {"benchmark": True, "deterministic": False}  # TF32 is a dtype of its own: see `prepare`
ALLOCATOR = {
    # Large blocks come from the heap and stay there: no page faults inside a sample.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_TOP_PAD_": str(64 << 20),
}


def worker_environment(threads: int, allocator: str, cache: Path) -> dict[str, str]:
    """What a worker's environment adds to the user's. allocator: "pinned" or "system"."""
    pinned = ALLOCATOR if allocator == "pinned" else {}
    return {
        **pinned,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
        "TRITON_CACHE_DIR": str(cache / "triton"),
        "TORCHINDUCTOR_COMPILE_THREADS": "1",  # no pool of helpers beside the launch
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "HF_HUB_OFFLINE": "1",
    }


def allowed_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_threads() -> int:
    """As many as run at once: no more than cores, and than whole CPUs of the control group's quota, but one."""
    share = quota.cpus()
    return allowed_cores() if share is None else max(1, min(allowed_cores(), int(share)))


def prepare_cpu(threads: int) -> None:
    """Pin what every launch depends on."""
    import torch

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)


def prepare(device: str, dtype: str, threads: int) -> None:
    """Pin what a launch in torch depends on; Unavailable or Unsupported when this machine cannot do the case."""
    import torch

    prepare_cpu(threads)
    if device == "cpu":
        if dtype == "tf32":
            raise Unsupported("dtype 'tf32' exists on CUDA devices only: use float32 on a CPU")
        return
    if absent := torch_cuda.no_cuda():
        raise Unavailable(f"device '{device}': {absent.reason}")
    index = int(device.split(":")[1])
    if index >= torch.cuda.device_count():
        raise Unavailable(f"device '{device}': this machine has {torch.cuda.device_count()} CUDA devices")
    torch.cuda.set_device(index)
    torch.backends.cuda.matmul.allow_tf32 = dtype == "tf32"
    torch.backends.cudnn.allow_tf32 = dtype == "tf32"
    for flag, value in CUDNN_FLAGS.items():
        setattr(torch.backends.cudnn, flag, value)
    torch.cuda.set_stream(torch.cuda.Stream(index))


def torch_dtype(name: str) -> torch.dtype:
    """The element type of a dtype name; tf32 is float32 multiplied otherwise."""
    import torch

    dtype: torch.dtype = getattr(torch, "float32" if name == "tf32" else name)
    return dtype
