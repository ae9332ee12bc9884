"""A CUDA device as torch uses it, on torch's current stream. Never run on a GPU yet."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from mixprof.machine import nvml
from mixprof.machine.devices import QUEUE, Call

SPIN_CYCLES = 2_000_000  # a spin from whose length that of a cycle is told: about a millisecond


class TorchCuda:
    """The current stream of torch on the CUDA device of that name."""

    queue = QUEUE

    def __init__(self, name: str):
        self.name, self.index = name, int(name.split(":")[1])
        self._cycles_a_ms = 0.0

    def clock(self) -> float:
        return time.perf_counter()

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def synchronize(self) -> None:
        import torch

        torch.cuda.synchronize(self.name)

    def event(self) -> Any:
        import torch

        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def is_done(self, event: Any) -> bool:
        return bool(event.query())

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        return float(begin.elapsed_time(end))

    def spin(self, ms: float) -> None:
        """By the clock that the device had when it spun for the first time; a faster one makes it shorter."""
        import torch

        if not self._cycles_a_ms:
            torch.cuda._sleep(SPIN_CYCLES)  # loads the kernel
            begin = self.event()
            torch.cuda._sleep(SPIN_CYCLES)
            end = self.event()
            self.synchronize()
            self._cycles_a_ms = SPIN_CYCLES / self.elapsed_ms(begin, end)
        torch.cuda._sleep(max(1, int(ms * self._cycles_a_ms)))

    def flusher(self) -> Call:
        """Reads four times the L2 cache."""
        import torch

        size = int(torch.cuda.get_device_properties(self.name).L2_cache_size)
        return torch.ones(size, device=self.name).sum

    def capture(self, run: Call) -> Call:
        """Captured after three forwards, which allocate and choose algorithms."""
        import torch

        for _ in range(3):
            run()
        self.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
        replay: Call = graph.replay
        return replay

    def reader(self) -> Callable[[], nvml.Reading] | None:
        return nvml.reader(self.index)

    def slowdown_c(self) -> int | None:
        return nvml.slowdown_c(self.index)

    def allocator_peak(self, forward: Call) -> int:
        """Peak bytes that PyTorch's allocator held on the device above what it held at the start."""
        import torch

        self.synchronize()
        before = torch.cuda.memory_allocated(self.index)
        torch.cuda.reset_peak_memory_stats(self.index)
        forward()
        self.synchronize()
        return torch.cuda.max_memory_allocated(self.index) - before

    def reserved(self) -> dict[str, int | None]:
        """What PyTorch has of the device: most it gave out since the last reset (weights and inputs included), all
        blocks it keeps, and those of them in pools of CUDA graphs."""
        import torch

        segments = torch.cuda.memory_snapshot()
        in_graphs = sum(
            segment["total_size"] for segment in segments if tuple(segment.get("segment_pool_id", (0, 0))) != (0, 0)
        )
        return {
            "cuda_allocated_bytes": torch.cuda.max_memory_allocated(self.index),
            "cuda_reserved_bytes": torch.cuda.memory_reserved(self.index),
            "cuda_graph_pool_bytes": in_graphs,
        }
