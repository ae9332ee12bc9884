"""A CUDA device as engines use it: a stream of pycuda's, torch's CUDA left alone. Never run on a GPU yet."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from mixprof.data.errors import Unsupported
from mixprof.machine import nvml
from mixprof.machine.devices import QUEUE, Call


class EngineDevice:
    """A stream of a context that is current. `stream` is let go of when the context is left, whoever holds this."""

    queue = QUEUE

    def __init__(self, stream: Any, driver: Any, index: int, l2_bytes: int):
        self.stream, self.driver, self.index, self.l2_bytes = stream, driver, index, l2_bytes
        self.name = f"cuda:{index}"

    def clock(self) -> float:
        return time.perf_counter()

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def synchronize(self) -> None:
        self.stream.synchronize()

    def event(self) -> Any:
        event = self.driver.Event()
        event.record(self.stream)
        return event

    def is_done(self, event: Any) -> bool:
        return bool(event.query())

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        return float(begin.time_till(end))

    def spin(self, ms: float) -> None:
        raise NotImplementedError

    def flusher(self) -> Call:
        """Copies twice the L2 cache from one place to another, which leaves nothing else in it."""
        if not self.l2_bytes:
            raise Unsupported("mode 'cold': this device does not tell how large its L2 cache is: use --modes hot")
        size = 2 * self.l2_bytes
        source, target = self.driver.mem_alloc(size), self.driver.mem_alloc(size)
        return lambda: self.driver.memcpy_dtod_async(target, source, size, self.stream)

    def capture(self, run: Call) -> Call:
        raise NotImplementedError

    def reader(self) -> Callable[[], nvml.Reading] | None:
        return nvml.reader(self.index)

    def slowdown_c(self) -> int | None:
        return nvml.slowdown_c(self.index)

    def allocator_peak(self, forward: Call) -> int | None:
        return None

    def reserved(self) -> dict[str, int | None]:
        return {}
