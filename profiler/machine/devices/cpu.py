"""The CPU: a forward has ended when its call returns."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import accumulate

from mixprof.data.errors import Unsupported
from mixprof.machine.devices import Call
from mixprof.machine.nvml import Reading

FLUSH_BYTES = 256 << 20


class Cpu:
    """This machine's CPU."""

    name, queue = "cpu", 0

    def clock(self) -> float:
        return time.perf_counter()

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def synchronize(self) -> None:
        """There is nothing to wait for."""

    def event(self) -> float:
        return time.perf_counter()

    def is_done(self, event: float) -> bool:
        return True

    def elapsed_ms(self, begin: float, end: float) -> float:
        return 1000 * (end - begin)

    def spin(self, ms: float) -> None:
        end = time.perf_counter() + ms / 1000
        while time.perf_counter() < end:
            pass

    def flusher(self) -> Call:
        """Reads 256 MiB."""
        import torch

        return torch.ones(FLUSH_BYTES // 4).sum

    def capture(self, run: Call) -> Call:
        raise Unsupported("lowering 'eager:graph=on': CUDA graphs need a CUDA device")

    def reader(self) -> Callable[[], Reading] | None:
        return None

    def slowdown_c(self) -> int | None:
        return None

    def allocator_peak(self, forward: Call) -> int:
        """Peak bytes that PyTorch's CPU allocator held above what it held at the start, of one forward.

        The forward runs once under the profiler, whose memory events are the allocator's own calls: kernels' workspaces
        that it hands out (oneDNN's among them) are included, what a library takes from malloc by itself is not.
        """
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
            forward()
        assert trace.profiler is not None
        events = [event for event in trace.profiler.kineto_results.events() if event.name() == "[memory]"]
        changes = (event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
        return max(accumulate(changes, initial=0))

    def reserved(self) -> dict[str, int | None]:
        return {}
