"""Memory of a forward and of a module, in bytes. Each function says which kind it is: they do not compare."""

from collections.abc import Callable, Iterable
from itertools import accumulate
from pathlib import Path

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from mixprof.data.launch import Memory
from mixprof.metrics import Subject

_CLEAR_REFS, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def measure(subject: Subject) -> Memory:
    """Peaks of further forwards, after the timed ones. None for one that cannot be measured."""
    in_torch, on_cpu = subject.lowered.runs_in_torch, subject.case.device == "cpu"
    allocator_peak = None
    if in_torch:
        allocator_peak = (allocator_peak_cpu if on_cpu else allocator_peak_cuda)(subject.forward)
    return Memory(
        **(reserved_cuda() if in_torch and not on_cpu else {}),
        allocator_peak_bytes=allocator_peak,
        process_peak_bytes=process_peak(subject.forward),
        weights_bytes=subject.weights_bytes,
    )


def allocator_peak_cpu(forward: Callable[[], object]) -> int:
    """Peak bytes that PyTorch's CPU allocator held above what it held at the start, of one forward.

    The forward runs once under the profiler, whose memory events are the allocator's own calls: kernels' workspaces
    that it hands out (oneDNN's among them) are included, what a library takes from malloc by itself is not.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        forward()
    assert trace.profiler is not None
    events = [event for event in trace.profiler.kineto_results.events() if event.name() == "[memory]"]
    return _peak(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))


def _peak(changes: Iterable[int]) -> int:
    """Highest point of the running sum of changes in bytes, which starts at 0."""
    return max(accumulate(changes, initial=0))


def allocator_peak_cuda(forward: Callable[[], object]) -> int:
    """Peak bytes that PyTorch's allocator held on the current CUDA device above what it held at the start."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    forward()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def reserved_cuda() -> dict[str, int | None]:
    """What PyTorch has of the current CUDA device: most it gave out since the last reset (weights and inputs
    included), all blocks it keeps, and those of them in pools of CUDA graphs."""
    segments = torch.cuda.memory_snapshot()
    in_graphs = sum(
        segment["total_size"] for segment in segments if tuple(segment.get("segment_pool_id", (0, 0))) != (0, 0)
    )
    return {
        "cuda_allocated_bytes": torch.cuda.max_memory_allocated(),
        "cuda_reserved_bytes": torch.cuda.memory_reserved(),
        "cuda_graph_pool_bytes": in_graphs,
    }


def process_peak(forward: Callable[[], object]) -> int | None:
    """Highest resident memory of the whole process during one forward; None where the kernel does not tell.

    Linux only: writing 5 resets the high-water mark to what is resident now (proc(5), /proc/pid/clear_refs).
    """
    try:
        _CLEAR_REFS.write_text("5")
    except OSError:
        return None
    forward()
    fields = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return int(fields["VmHWM"].removesuffix("kB")) * 1024 if "VmHWM" in fields else None


def weights_bytes(module: nn.Module) -> int:
    """Bytes of a module's parameters and buffers, shared storages once."""
    tensors = [*module.parameters(), *module.buffers()]
    storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())
