"""What this machine is: its devices, versions, and all that decides whether two results compare."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
from pathlib import Path

from mixprof.machine.flags import CUDNN_FLAGS
from mixprof.machine.process import default_threads, recorded_variables, stripped_variables

PACKAGES = (
    *("torch", "numpy", "onnx", "onnxscript", "onnxruntime", "openvino"),
    *("tensorrt", "tensorrt-rtx", "triton", "mixprof"),
)


def devices() -> list[str]:
    """The devices of this machine, the default one last. Call it in a worker: it may touch CUDA."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return ["cpu", *(f"cuda:{index}" for index in reversed(range(count)))]


def versions() -> dict[str, str]:
    """Installed packages that a result depends on."""
    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def testbed(threads: int, allocator: str) -> dict[str, object]:
    """What decides whether two results may be compared. Call it in a worker: it may touch CUDA."""
    machine = {
        "cpu": _cpu_model(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "affinity": default_threads(),
        "quota": _cpu_quota(),
        "threads": threads,
        "allocator": allocator,
        "libc": " ".join(platform.libc_ver()),
    }
    variables = recorded_variables()
    return {**machine, **({"variables": variables} if variables else {}), **_gpu()}


def informing() -> dict[str, object]:
    """What may explain a difference and does not forbid a comparison."""
    return {
        "kernel": platform.release(),
        "hostname_hash": hashlib.sha256(platform.node().encode()).hexdigest()[:8],
        "governor": governor(),
        "memory_bytes": total_memory_bytes(),
        "stripped_variables": stripped_variables(),
    }


def governor() -> str | None:
    """The policy by which the kernel chooses the first CPU's clock; None where it does not tell."""
    return _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def total_memory_bytes() -> int:
    """The machine's memory, or its control group's bound where that is lower."""
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    bounds = (_read("/sys/fs/cgroup/memory.max"), _read("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
    return min([installed, *(int(bound) for bound in bounds if bound is not None and bound.isdigit())])


def _gpu() -> dict[str, object]:
    import torch

    from mixprof.machine import nvml

    if not torch.cuda.is_available():
        return {}
    properties = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return {
        "gpus": [f"{gpu.name} sm_{gpu.major}{gpu.minor}" for gpu in properties],
        "gpu_settings": [nvml.identity(index) for index in range(len(properties))],
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "cudnn_flags": CUDNN_FLAGS,
    }


def _cpu_model() -> str | None:
    lines = (_read("/proc/cpuinfo") or "").splitlines()
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith(("model name", "Model")))
    return next(named, platform.processor() or None)


def _cpu_quota() -> str | None:
    """The container's CPU quota as "quota period" in microseconds, control groups version 2 or 1."""
    second = _read("/sys/fs/cgroup/cpu.max")
    if second is not None:
        return second
    quota, period = (_read(f"/sys/fs/cgroup/cpu/cpu.cfs_{name}_us") for name in ("quota", "period"))
    return None if quota is None else f"{quota} {period}"


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None
