"""The one place that tells CPU from CUDA: worker environment, streams, clocks, what the machine is."""

from __future__ import annotations

import hashlib
import importlib.metadata
import math
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mixprof.data.errors import Unavailable, Unsupported

if TYPE_CHECKING:
    import torch


class Stream(Protocol):
    """Where work of a CUDA device is enqueued, whoever made it."""

    def event(self) -> Any: ...  # an event recorded now

    def elapsed_ms(self, begin: Any, end: Any) -> float: ...

    def synchronize(self) -> None: ...

    def flusher(self) -> Callable[[], object]: ...  # what empties the L2 cache


BLOCK_MS = 1.0  # a sample is at least this long: forwards are repeated until it is
CPU_FLUSH_BYTES = 256 << 20
QUEUED_BLOCKS = 8  # of event pairs between two synchronises on CUDA
PACKAGES = ("torch", "numpy", "onnx", "onnxscript", "onnxruntime", "tensorrt", "tensorrt-rtx", "triton", "mixprof")
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


def default_threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
    if not torch.cuda.is_available():
        raise Unavailable(f"device '{device}': this torch sees no CUDA device; `mixprof doctor` says why")
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

    found: torch.dtype = getattr(torch, "float32" if name == "tf32" else name)
    return found


class TorchStream:
    """The current stream of torch on a CUDA device."""

    def __init__(self, device: str):
        self.device = device

    def event(self) -> Any:
        import torch

        found = torch.cuda.Event(enable_timing=True)
        found.record()
        return found

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        return float(begin.elapsed_time(end))

    def synchronize(self) -> None:
        import torch

        torch.cuda.synchronize(self.device)

    def flusher(self) -> Callable[[], object]:
        """Reads four times the L2 cache."""
        import torch

        size = int(torch.cuda.get_device_properties(self.device).L2_cache_size)
        return torch.ones(size, device=self.device).sum


def forwards_per_sample(forward: Callable[[], object], stream: Stream | None) -> int:
    """How often to repeat a forward so that a sample lasts at least a millisecond."""
    once_ms = min(_host_block(forward, 1, stream) for _ in range(3))
    return max(1, math.ceil(BLOCK_MS / max(once_ms, 1e-3)))


def _host_block(forward: Callable[[], object], repeats: int, stream: Stream | None) -> float:
    """Milliseconds per forward over `repeats` of them, the last one's result ready."""
    start = time.perf_counter_ns()
    for _ in range(repeats):
        forward()
    if stream is not None:
        stream.synchronize()
    return (time.perf_counter_ns() - start) / 1e6 / repeats


def host_sampler(
    forward: Callable[[], object],
    repeats: int,
    stream: Stream | None = None,
    before: Callable[[], object] | None = None,
) -> Callable[[], float]:
    """A sample from call to result ready, in milliseconds per forward; `before` runs outside it. No stream: a CPU."""

    def take() -> float:
        if before is not None:
            before()
            if stream is not None:
                stream.synchronize()
        return _host_block(forward, repeats, stream)

    return take


def enqueue_sampler(forward: Callable[[], object], stream: Stream) -> Callable[[], float]:
    """A sample of the host time to enqueue one forward, in milliseconds; the queue is empty before it."""

    def take() -> float:
        stream.synchronize()
        start = time.perf_counter_ns()
        forward()
        return (time.perf_counter_ns() - start) / 1e6

    return take


def gpu_sampler(
    forward: Callable[[], object],
    repeats: int,
    stream: Stream,
    before: Callable[[], object] | None = None,
    look: Callable[[], object] = lambda: None,
) -> Callable[[], float]:
    """Samples of device time in milliseconds per forward, event pairs queued ahead of the GPU.

    The first block of each queue hides the time the host needs to get ahead and is not a
    sample. `before` runs ahead of each block, outside its events; `look` once a queue, while it runs.
    """
    ready: list[float] = []

    def refill() -> None:
        pairs = []
        for _ in range(QUEUED_BLOCKS + 1):
            if before is not None:
                before()
            begin = stream.event()
            for _ in range(repeats):
                forward()
            pairs.append((begin, stream.event()))
        look()
        stream.synchronize()
        ready.extend(stream.elapsed_ms(begin, end) / repeats for begin, end in pairs[:0:-1])

    def take() -> float:
        if not ready:
            refill()
        return ready.pop()

    return take


def cpu_flusher() -> Callable[[], object]:
    """What empties a CPU's last-level cache: it reads 256 MiB."""
    import torch

    return torch.ones(CPU_FLUSH_BYTES // 4).sum


def devices() -> list[str]:
    """The devices of this machine, the default one last. Call it in a worker: it may touch CUDA."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return ["cpu", *(f"cuda:{index}" for index in reversed(range(count)))]


def versions() -> dict[str, str]:
    """Installed packages that a result depends on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def testbed(threads: int, allocator: str) -> dict[str, Any]:
    """What decides whether two results may be compared. Call it in a worker: it may touch CUDA."""
    found = {
        "cpu": _cpu_model(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "affinity": default_threads(),
        "quota": _cpu_quota(),
        "threads": threads,
        "allocator": allocator,
        "libc": " ".join(platform.libc_ver()),
    }
    return {**found, **_gpu()}


def informing() -> dict[str, Any]:
    """What may explain a difference and does not forbid a comparison."""
    return {
        "kernel": platform.release(),
        "hostname_hash": hashlib.sha256(platform.node().encode()).hexdigest()[:8],
        "governor": governor(),
        "memory_bytes": total_memory_bytes(),
    }


def governor() -> str | None:
    """The policy by which the kernel chooses the first CPU's clock; None where it does not tell."""
    return _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def total_memory_bytes() -> int:
    """The machine's memory, or its control group's bound where that is lower."""
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    bounds = (_read("/sys/fs/cgroup/memory.max"), _read("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
    return min([installed, *(int(bound) for bound in bounds if bound is not None and bound.isdigit())])


def _gpu() -> dict[str, Any]:
    import torch

    from mixprof.machine import nvml

    if not torch.cuda.is_available():
        return {}
    properties = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return {
        "gpus": [f"{each.name} sm_{each.major}{each.minor}" for each in properties],
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
