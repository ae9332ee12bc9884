"""What a worker process is pinned to: environment, threads, allocator, TF32, the current CUDA stream."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mixprof.data.case import QUANTIZED, is_simulated
from mixprof.data.errors import Unavailable, Unsupported
from mixprof.machine import cuda_driver, flags, quota, torch_cuda
from mixprof.machine.nvml import JOB

if TYPE_CHECKING:
    import torch

# Variables of the user's that would turn a lowering into another one, or a dtype, unseen: no worker has them.
STRIPPED = (
    "TORCHDYNAMO_", "TORCH_COMPILE_", "TORCHINDUCTOR_", "CUDA_LAUNCH_BLOCKING", "NVIDIA_TF32_OVERRIDE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "PYTORCH_NO_CUDA_MEMORY_CACHING", "CUBLAS_", "CUBLASLT_", "TORCH_CUBLASLT_",
    "TORCH_BLAS_PREFER_", "DISABLE_ADDMM_CUDA_LT", "TORCH_CUDNN_", "ONEDNN_DEFAULT_FPMATH_MODE",
    "DNNL_DEFAULT_FPMATH_MODE", "TRITON_INTERPRET",
)  # fmt: skip
# And those that only change how fast it runs: kept, and part of the testbed.
RECORDED = (
    "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "CUDA_DEVICE_MAX_CONNECTIONS", "CUDA_FORCE_PTX_JIT",
    "CUDA_DISABLE_PTX_JIT", "CUDA_MPS_", "ATEN_CPU_CAPABILITY", "ONEDNN_", "DNNL_", "OMP_", "KMP_", "GOMP_", "MKL_",
    "LD_PRELOAD", "GLIBC_TUNABLES", "MALLOC_", "TRITON_",
)  # fmt: skip
TOLD = "MIXPROF_STRIPPED"  # variable: the names of those that a worker was not given
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
        JOB: os.environ.get(JOB) or str(os.getpid()),
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
        "TRITON_CACHE_DIR": str(cache / "triton"),
        "TORCHINDUCTOR_COMPILE_THREADS": "1",  # no pool of helpers beside the launch
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "HF_HUB_OFFLINE": "1",
    }


def inherited() -> dict[str, str]:
    """This process's environment as a worker inherits it, and the names of what it does not."""
    ours = worker_environment(1, "pinned", Path())
    stripped = {name for name in os.environ if name.startswith(STRIPPED) and name not in ours}
    kept = {name: value for name, value in os.environ.items() if name not in stripped}
    return {TOLD: ",".join(sorted(stripped)), **kept}


def stripped_variables() -> list[str]:
    """In a worker: which of the user's variables it was not given."""
    return [name for name in os.environ.get(TOLD, "").split(",") if name]


def recorded_variables() -> dict[str, str]:
    """In a worker: the user's variables that change how fast it runs."""
    ours = worker_environment(1, "pinned", Path())
    return {name: each for name, each in sorted(os.environ.items()) if name.startswith(RECORDED) and name not in ours}


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


def refuse_tf32(device: str, dtype: str) -> None:
    """Unsupported for a device that has no TF32: torch would multiply in float32 and say nothing."""
    if dtype != "tf32":
        return
    if device == "cpu":
        raise Unsupported("dtype 'tf32' exists on CUDA devices only: use float32 on a CPU")
    major, minor = cuda_driver.compute_capability(int(device.split(":")[1]))
    if 0 < major < 8:
        raise Unsupported(f"dtype 'tf32' needs compute capability 8.0, {device} has {major}.{minor}: use float32")


def prepare(device: str, dtype: str, threads: int) -> None:
    """Pin what a launch in torch depends on; Unavailable or Unsupported when this machine cannot do the case."""
    import torch

    prepare_cpu(threads)
    flags.apply(flags.wanted(dtype, threads))
    if is_simulated(device):
        return
    refuse_tf32(device, dtype)
    if device == "cpu":
        return
    if absent := torch_cuda.no_cuda():
        raise Unavailable(f"device '{device}': no CUDA device: {absent.reason}")
    index = int(device.split(":")[1])
    if index >= torch.cuda.device_count():
        raise Unavailable(f"device '{device}': this machine has {torch.cuda.device_count()} CUDA devices")
    torch.cuda.set_device(index)
    torch.cuda.set_stream(torch.cuda.Stream(index))


def torch_dtype(name: str) -> torch.dtype:
    """The element type of a dtype name; tf32, amp_*, int8 and fp8 are made of float32 weights."""
    import torch

    dtype: torch.dtype = getattr(torch, "float32" if name in ("tf32", *QUANTIZED) or name.startswith("amp_") else name)
    return dtype
