"""Streams and samplers: how the time of a forward is taken on a CPU and on a CUDA device."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from mixprof.data.errors import Unsupported

BLOCK_MS = 1.0  # a sample is at least this long: forwards are repeated until it is
CPU_FLUSH_BYTES = 256 << 20
QUEUED_BLOCKS = 8  # of event pairs between two synchronises on CUDA
Call = Callable[[], object]


class Stream(Protocol):
    """Where work of a CUDA device is enqueued, whoever made it."""

    def event(self) -> Any: ...  # an event recorded now

    def elapsed_ms(self, begin: Any, end: Any) -> float: ...

    def synchronize(self) -> None: ...

    def flusher(self) -> Call: ...  # what empties the L2 cache


class TorchStream:
    """The current stream of torch on a CUDA device."""

    def __init__(self, device: str):
        self.device = device

    def event(self) -> Any:
        import torch

        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        return float(begin.elapsed_time(end))

    def synchronize(self) -> None:
        import torch

        torch.cuda.synchronize(self.device)

    def flusher(self) -> Call:
        """Reads four times the L2 cache."""
        import torch

        size = int(torch.cuda.get_device_properties(self.device).L2_cache_size)
        return torch.ones(size, device=self.device).sum


@dataclass
class DriverStream:
    """A stream of pycuda's, for what runs without torch's CUDA.

    Not frozen: `stream` is let go of when the device's context is left, whoever still holds this.
    """

    stream: Any
    driver: Any
    l2_bytes: int

    def event(self) -> Any:
        """An event recorded now."""
        event = self.driver.Event()
        event.record(self.stream)
        return event

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        return float(begin.time_till(end))

    def synchronize(self) -> None:
        self.stream.synchronize()

    def flusher(self) -> Call:
        """Copies twice the L2 cache from one place to another, which leaves nothing else in it."""
        if not self.l2_bytes:
            raise Unsupported("mode 'cold': this device does not tell how large its L2 cache is: use --modes hot")
        size = 2 * self.l2_bytes
        source, target = self.driver.mem_alloc(size), self.driver.mem_alloc(size)
        return lambda: self.driver.memcpy_dtod_async(target, source, size, self.stream)


def forwards_per_sample(forward: Call, stream: Stream | None) -> int:
    """How often to repeat a forward so that a sample lasts at least a millisecond."""
    once_ms = min(_host_block(forward, 1, stream) for _ in range(3))
    return max(1, math.ceil(BLOCK_MS / max(once_ms, 1e-3)))


def _host_block(forward: Call, repeats: int, stream: Stream | None) -> float:
    """Milliseconds per forward over `repeats` of them, the last one's result ready."""
    start = time.perf_counter_ns()
    for _ in range(repeats):
        forward()
    if stream is not None:
        stream.synchronize()
    return (time.perf_counter_ns() - start) / 1e6 / repeats


def host_sampler(
    forward: Call,
    repeats: int,
    stream: Stream | None = None,
    before: Call | None = None,
) -> Callable[[], float]:
    """A sample from call to result ready, in milliseconds per forward; `before` runs outside it. No stream: a CPU."""

    def take() -> float:
        if before is not None:
            before()
            if stream is not None:
                stream.synchronize()
        return _host_block(forward, repeats, stream)

    return take


def enqueue_sampler(forward: Call, stream: Stream) -> Callable[[], float]:
    """A sample of the host time to enqueue one forward, in milliseconds; the queue is empty before it."""

    def take() -> float:
        stream.synchronize()
        start = time.perf_counter_ns()
        forward()
        return (time.perf_counter_ns() - start) / 1e6

    return take


def gpu_sampler(
    forward: Call,
    repeats: int,
    stream: Stream,
    before: Call | None = None,
    look: Call = lambda: None,
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


def cpu_flusher() -> Call:
    """What empties a CPU's last-level cache: it reads 256 MiB."""
    import torch

    return torch.ones(CPU_FLUSH_BYTES // 4).sum
