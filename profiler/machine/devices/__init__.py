"""Devices: what a sampler, a metric and a lowering ask of where a forward runs. One file each.

`of` makes the one of a case; an engine brings its own, which leaves torch's CUDA alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from mixprof.machine.nvml import Reading

Call = Callable[[], object]
QUEUE = 900  # launches at most behind a gate: a CUDA stream takes about 1,000 before the next one waits


class Device(Protocol):
    """Where forwards run. Times in milliseconds, but for the clock."""

    name: str
    queue: int  # launches that may wait behind a gate; 0 where a forward has ended when its call returns: a CPU

    def clock(self) -> float: ...  # seconds of the host

    def wait(self, seconds: float) -> None: ...  # with nothing to do

    def synchronize(self) -> None: ...

    def event(self) -> Any: ...  # recorded now, behind all that is enqueued

    def is_done(self, event: Any) -> bool: ...  # without waiting for it

    def elapsed_ms(self, begin: Any, end: Any) -> float: ...

    def spin(self, ms: float) -> None: ...  # enqueue a kernel that lasts this long and touches no memory

    def flusher(self) -> Call: ...  # what empties the last cache by reading, and writes nothing

    def capture(self, run: Call) -> Call: ...  # one forward as a graph: what replays it

    def reader(self) -> Callable[[], Reading] | None: ...  # its sensors; None where it has none

    def slowdown_c(self) -> int | None: ...  # degrees at which it slows itself down; None where it does not tell

    def allocator_peak(self, forward: Call) -> int | None: ...  # bytes above what was there before, of a forward

    def reserved(self) -> dict[str, int | None]: ...  # bytes that a record keeps of it, by their names there


def of(name: str) -> Device:
    """The device of that name as torch uses it; a simulated one is made with the forward that it stands for."""
    if name == "cpu":
        from mixprof.machine.devices.cpu import Cpu

        return Cpu()
    from mixprof.machine.devices.torch_cuda import TorchCuda

    return TorchCuda(name)
