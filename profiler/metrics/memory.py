"""Memory of a forward and of a module, in bytes. Each function says which kind it is: they do not compare."""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from mixprof.data.case import is_simulated
from mixprof.data.launch import Memory
from mixprof.metrics import Subject

_CLEAR_REFS, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def measure(subject: Subject) -> Memory:
    """Peaks of further forwards, after the timed ones. None for one that cannot be measured."""
    device, in_torch = subject.device, subject.lowered.runs_in_torch
    return Memory(
        allocator_peak_bytes=device.allocator_peak(subject.forward) if in_torch else None,
        **(device.reserved() if in_torch else {}),
        process_peak_bytes=None if is_simulated(subject.case.device) else process_peak(subject.forward),
        weights_bytes=subject.weights_bytes,
    )


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
