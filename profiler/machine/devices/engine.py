"""A CUDA device as engines use it: a stream of the driver's, torch's CUDA left alone. Never run on a GPU yet."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import resources
from typing import Any

import numpy as np

from mixprof.data.errors import Unsupported
from mixprof.machine import nvml
from mixprof.machine.cuda_graph import Captured
from mixprof.machine.devices import QUEUE, Call, driver

FLUSHED = 4  # times the L2 cache that a flush reads
THREADS, BLOCKS, PIECE = 256, 1024, 16  # of the kernel that reads, and the bytes that a thread reads at once


class EngineDevice:
    """The stream that an engine is enqueued on, in a context that is current until `close`."""

    queue = QUEUE

    def __init__(self, index: int):
        self.name, self.index = f"cuda:{index}", index
        self.driver = driver.enter(index)
        self.stream: Any = self.driver.stream()
        self._kernels: dict[str, Any] = {}
        self._graphs: list[Captured] = []

    @property
    def handle(self) -> int:
        """The stream's address."""
        return self.driver.handle(self.stream)

    def clock(self) -> float:
        return time.perf_counter()

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def synchronize(self) -> None:
        self.driver.synchronize(self.stream)

    def event(self) -> Any:
        return self.driver.event(self.stream)

    def is_done(self, event: Any) -> bool:
        return self.driver.is_done(event)

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        return self.driver.elapsed_ms(begin, end)

    def _kernel(self, name: str) -> Any:
        if name not in self._kernels:
            ptx = resources.files("mixprof.machine.devices").joinpath("kernels.ptx").read_bytes()
            self._kernels[name] = self.driver.kernel(ptx, name)
        return self._kernels[name]

    def spin(self, ms: float) -> None:
        self.driver.launch(self._kernel("spin"), 1, 1, self.stream, int(1e6 * ms))

    def flusher(self) -> Call:
        """Reads four times the L2 cache."""
        if not self.driver.l2_bytes:
            raise Unsupported("mode 'cold': this device does not tell how large its L2 cache is: use --modes hot")
        kernel, size = self._kernel("read"), FLUSHED * self.driver.l2_bytes
        zeros = self.driver.allocate(size)
        self.driver.fill(zeros, 0, size, self.stream)
        return lambda: self.driver.launch(kernel, BLOCKS, THREADS, self.stream, int(zeros), size // PIECE)

    def capture(self, run: Call) -> Call:
        """One forward as a CUDA graph, which lasts until `free_graphs`."""
        self._graphs.append(Captured(self.handle, run))
        return self._graphs[-1].launch

    def free_graphs(self) -> None:
        """Call it before what they use is freed."""
        while self._graphs:
            self._graphs.pop().destroy()

    def allocate(self, size: int) -> Any:
        """Device memory; at least a byte, since an empty tensor needs an address, too."""
        return self.driver.allocate(max(1, size))

    def upload(self, memory: Any, content: np.ndarray) -> None:
        if content.nbytes:
            self.driver.upload(memory, content)

    def download(self, memory: Any, size: int) -> np.ndarray:
        content = np.empty(size, np.uint8)
        if size:
            self.driver.download(content, memory)
        return content

    def fill(self, memory: Any, byte: int, size: int) -> None:
        self.driver.fill(memory, byte, max(1, size), self.stream)

    def reader(self) -> Callable[[], nvml.Reading] | None:
        return nvml.reader(self.index)

    def slowdown_c(self) -> int | None:
        return nvml.slowdown_c(self.index)

    def allocator_peak(self, forward: Call) -> int | None:
        """None: what TensorRT takes it takes once, as `activation_bytes` of the proof."""
        return None

    def reserved(self) -> dict[str, int | None]:
        return {}

    def close(self) -> None:
        """Let go of the stream and leave the context."""
        self.stream = None
        self._kernels.clear()
        self.driver.leave()
