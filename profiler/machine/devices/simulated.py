"""sim:0, a simulated GPU with a clock of its own: nothing it tells was measured.

The host enqueues launches, each at a cost, into a queue that is full at some point; the device takes them one after
another at a clock that ramps up and that a power cap or a thermal slowdown lowers. All noise follows from a seed.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from mixprof.machine.devices import QUEUE, Call
from mixprof.machine.nvml import Reading
from mixprof.machine.simulation import Gpu, Kernel

WINDOW_US = 5e3  # for which a lowered clock lasts
CAP_SPREAD = 0.04  # of the clock under a power cap, to either side
SLOWED = 0.6  # of the clock in a thermal slowdown
HOST_NOISE = 0.03  # of a forward's enqueueing, standard deviation of its log
IDLE_W, BUSY_W = 60.0, 400.0
COOL_C, WARM_C, SLOWDOWN_C, WARMING_S = 35.0, 70.0, 90, 5.0
BLOCK_BYTES, SEGMENT_BYTES = 512, 2 << 20  # in which the allocator hands out, and takes from the device


class OutOfMemoryError(RuntimeError):
    """The simulated GPU's memory is too small."""


@dataclass
class Memory:
    """The memory of a device and an allocator that keeps what it once took."""

    capacity: int
    allocated: int = 0
    peak: int = 0
    reserved: int = 0

    def allocate(self, size: int) -> int:
        """Bytes that were handed out. OutOfMemoryError where the device has no room for them."""
        size = -(-size // BLOCK_BYTES) * BLOCK_BYTES
        segments = -(-(self.allocated + size) // SEGMENT_BYTES) * SEGMENT_BYTES
        if segments > self.capacity:
            free = self.capacity - self.allocated
            raise OutOfMemoryError(f"simulated GPU out of memory: tried to allocate {size:,} bytes of {free:,} free")
        self.allocated += size
        self.peak, self.reserved = max(self.peak, self.allocated), max(self.reserved, segments)
        return size

    def free(self, size: int) -> None:
        self.allocated -= size


@dataclass
class Simulated:
    """A simulated GPU and its host, from an idle start. Their times in microseconds."""

    gpu: Gpu
    seed: str
    name: str = "sim:0"
    queue: int = QUEUE
    host_us: float = 0.0
    free_us: float = 0.0  # when the device has done all that is enqueued
    busy_us: float = 0.0
    forward_bytes: int = 0  # that a forward allocates at its peak
    _waiting: deque[float] = field(default_factory=deque)  # when each launch of the queue ends
    _cached: set[Kernel] = field(default_factory=set)
    _window: tuple[int, float, tuple[str, ...]] = (-1, 1.0, ())

    def __post_init__(self) -> None:
        self._random = random.Random(f"{self.gpu.seed}/{self.seed}")
        self._of_process = math.exp(self.gpu.launch_noise * self._random.gauss(0, 1))
        self._heat = (self.gpu.start_c - COOL_C) / (WARM_C - COOL_C)  # from cool to warm
        self.memory = Memory(self.gpu.memory_bytes)

    def forward(self, kernels: Sequence[Kernel]) -> Call:
        """What enqueues these kernels, each with data of its own. What was read stays cached until a flush."""
        own = [replace(kernel) for kernel in kernels]

        def run() -> None:
            self._enqueue(own, self._noise(self.gpu.noise) * self._of_process)

        return run

    def _noise(self, deviation: float) -> float:
        """A factor whose median is 1."""
        return math.exp(deviation * self._random.gauss(0, 1))

    def _enqueue(self, kernels: Sequence[Kernel], noise: float) -> None:
        launch_us = self.gpu.launch_us * self._noise(HOST_NOISE)
        slowed = noise / self._clock_share(max(self.free_us, self.host_us))
        for kernel in kernels:
            if kernel.launches:
                self._make_room(launch_us)
            duration = slowed * (kernel.hot_us if kernel in self._cached else kernel.cold_us)
            self._run(duration, follows=not kernel.launches)
            self._cached.add(kernel)

    def _make_room(self, cost_us: float) -> None:
        """The host pays for a launch, after it waited until the queue takes it."""
        waiting = self._waiting
        self.host_us += cost_us
        while waiting and waiting[0] <= self.host_us:
            waiting.popleft()
        if len(waiting) >= self.gpu.queue:
            self.host_us = waiting.popleft()

    def _run(self, duration_us: float, *, follows: bool = False) -> None:
        start = self.free_us if follows else max(self.free_us, self.host_us + self.gpu.latency_us)
        self.free_us = start + duration_us
        self.busy_us += duration_us
        self._heat = 1 - (1 - self._heat) * math.exp(-duration_us / 1e6 / WARMING_S)
        if follows:
            self._waiting[-1] = self.free_us
        else:
            self._waiting.append(self.free_us)

    def _lowered(self, at_us: float) -> tuple[float, tuple[str, ...]]:
        """The share of the boost clock that is left at a time, and the reasons of a hardware slowdown."""
        number = int(at_us // WINDOW_US)
        if number != self._window[0]:
            draw = random.Random(f"{self.gpu.seed}/{self.seed}/{number}")
            share = self.gpu.power_cap
            share *= 1 + CAP_SPREAD * draw.uniform(-1, 1) if share < 1 else 1
            slow = draw.random() < self.gpu.throttled
            reasons = ("hardware thermal slowdown",) if slow else ()
            self._window = (number, share * (SLOWED if slow else 1), reasons)
        return self._window[1:]

    def _clock_share(self, at_us: float) -> float:
        """The clock over the boost clock."""
        gpu = self.gpu
        cold = (1 - gpu.idle_mhz / gpu.boost_mhz) * math.exp(-self.busy_us / 1e6 / gpu.ramp_s)
        return self._lowered(at_us)[0] * (1 - cold)

    def clock(self) -> float:
        return self.host_us / 1e6

    def wait(self, seconds: float) -> None:
        self.host_us += 1e6 * seconds
        self._heat *= math.exp(-seconds / WARMING_S)

    def synchronize(self) -> None:
        self.host_us = max(self.host_us, self.free_us) + self.gpu.sync_us
        self._waiting.clear()

    def event(self) -> float:
        """The time at which the device comes to it."""
        self._make_room(self.gpu.event_us)
        at = max(self.free_us, self.host_us + self.gpu.latency_us)
        self._waiting.append(at)
        return at

    def is_done(self, event: float) -> bool:
        return event <= self.host_us

    def elapsed_ms(self, begin: float, end: float) -> float:
        return (end - begin) / 1e3

    def spin(self, ms: float) -> None:
        self._make_room(self.gpu.launch_us)
        self._run(1e3 * ms)

    def work(self, us: float) -> Call:
        """A kernel of its own beside a forward, at whatever clock."""
        return self.forward([Kernel(us, us)])

    def flusher(self) -> Call:
        """Reads four times the L2 cache."""
        read_us = 4 * self.gpu.l2_bytes / (self.gpu.dram_gb_s * 1e3)

        def flush() -> None:
            self._make_room(self.gpu.launch_us)
            self._run(read_us)
            self._cached.clear()

        return flush

    def capture(self, run: Call) -> Call:
        raise NotImplementedError("a simulated forward is captured where its kernels are known: see `graph`")

    def reader(self) -> Callable[[], Reading]:
        def read() -> Reading:
            share, reasons = self._lowered(self.host_us)
            return Reading(
                sm_clock_mhz=round(self.gpu.boost_mhz * self._clock_share(self.host_us)),
                throttled=reasons,
                power_w=IDLE_W + (BUSY_W - IDLE_W) * share,
                temperature_c=round(COOL_C + (WARM_C - COOL_C) * self._heat),
                used_bytes=self.memory.reserved,
                process_bytes=self.memory.reserved,
                power_capped=self.gpu.power_cap < 1,
                at_s=self.clock(),
            )

        return read

    def slowdown_c(self) -> int:
        return SLOWDOWN_C

    def allocator_peak(self, forward: Call) -> int:
        before = self.memory.allocated
        self.memory.free(self.memory.allocate(self.forward_bytes))
        return self.memory.peak - before

    def reserved(self) -> dict[str, int | None]:
        return {
            "cuda_allocated_bytes": self.memory.peak,
            "cuda_reserved_bytes": self.memory.reserved,
            "cuda_graph_pool_bytes": None,
        }
