"""A simulated GPU's figures and the time its kernels take: pure functions, whose truth tests can ask for.

A kernel lasts a fixed overhead and the longer of two: its FLOPs at the rate of its unit, its bytes at the rate of the
memory they come from. That is the L2 cache where they fit into it and ran before, the DRAM otherwise. The figures are
those of no product; they are round ones of a large GPU's order.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from mixprof.data.errors import UsageError
from mixprof.data.json import digest

SETTINGS = "MIXPROF_SIM"  # of the environment: "launch_us=2,power_cap=0.8" gives sim:0 other figures


@dataclass(frozen=True)
class Gpu:
    """What a simulated GPU is. Rates are those at the boost clock."""

    launch_us: float = 6.0  # of the host, for each launch; a graph is one
    event_us: float = 1.0  # of the host, to record an event; the device needs no time for it
    latency_us: float = 3.0  # from a launch to its start on an idle device
    sync_us: float = 5.0  # of the host, to learn that the device is done
    overhead_us: float = 1.5  # of each kernel on the device
    node_us: float = 0.0  # more of each kernel of a graph
    queue: int = 1000  # launches; the next one waits for room
    matrix_tflops: float = 200.0  # in 16 bit; half of it in 32
    vector_tflops: float = 20.0
    dram_gb_s: float = 1500.0
    l2_gb_s: float = 5000.0
    l2_mib: float = 40.0
    memory_mib: float = 16384.0
    idle_mhz: int = 600
    boost_mhz: int = 1800
    ramp_s: float = 0.004  # of work, after which the clock is 63 % of the way from idle to boost
    power_cap: float = 1.0  # share of the boost clock that the power limit leaves on average
    throttled: float = 0.0  # share of the time in a hardware thermal slowdown
    start_c: float = 35.0  # of its temperature
    noise: float = 0.005  # of a forward, standard deviation of its log
    launch_noise: float = 0.002  # of a process
    seed: int = 0

    @property
    def l2_bytes(self) -> int:
        return int(self.l2_mib * 2**20)

    @property
    def memory_bytes(self) -> int:
        return int(self.memory_mib * 2**20)

    @property
    def words(self) -> str:
        """The same for equal figures: a digest of all, and those that MIXPROF_SIM changed."""
        changed = [
            f"{figure.name}={value}"
            for figure in fields(self)
            if (value := getattr(self, figure.name)) != figure.default
        ]
        return " ".join(["sim:0", digest(asdict(self)), *changed])


@dataclass(frozen=True, eq=False)
class Kernel:
    """One launch of a forward, or a graph's kernels one after another. Times in microseconds at the boost clock."""

    hot_us: float
    cold_us: float  # where nothing it reads is in the L2 cache
    launches: int = 1  # 0: follows the one before inside of a graph


@dataclass(frozen=True)
class Truth:
    """The times of a forward without noise, in milliseconds; see docs/simulated-device.md."""

    gpu_ms: float
    enqueue_ms: float
    request_ms: float
    launches: int  # of the host, a forward
    host_bound: bool  # the queue does not hold a forward


def configured(environment: str | None = None) -> Gpu:
    """The figures of sim:0, with what MIXPROF_SIM changes of them. UsageError for what they have not."""
    text = os.environ.get(SETTINGS, "") if environment is None else environment
    kinds: dict[str, Any] = {figure.name: type(figure.default) for figure in fields(Gpu)}
    values: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        try:
            values[name] = kinds[name](value)
        except (KeyError, ValueError):
            raise UsageError(f"{SETTINGS}: got '{part}', expected one of {', '.join(kinds)} and a number") from None
    return Gpu(**values)


def kernel(gpu: Gpu, *, kind: str, flops: int, moved_bytes: int, wide: bool) -> Kernel:
    """The kernel of one operator. kind: "matrix", "vector" or "move"; wide: of 32-bit elements."""
    rate = {"matrix": gpu.matrix_tflops, "vector": gpu.vector_tflops}.get(kind, gpu.vector_tflops) * 1e6
    compute_us = flops / (rate / 2 if wide else rate)
    dram_us, l2_us = (moved_bytes / (gb_s * 1e3) for gb_s in (gpu.dram_gb_s, gpu.l2_gb_s))
    hot_us = l2_us if moved_bytes <= gpu.l2_bytes else dram_us
    return Kernel(gpu.overhead_us + max(compute_us, hot_us), gpu.overhead_us + max(compute_us, dram_us))


def graph(gpu: Gpu, kernels: Sequence[Kernel]) -> list[Kernel]:
    """The kernels as one CUDA graph: one launch of the host."""
    return [
        Kernel(launched.hot_us + gpu.node_us, launched.cold_us + gpu.node_us, launches=int(index == 0))
        for index, launched in enumerate(kernels)
    ]


def truth(gpu: Gpu, kernels: Sequence[Kernel], *, cold: bool = False) -> Truth:
    """What a forward of these kernels takes. Under a power cap at the mean clock that it leaves."""
    durations = [(launched.cold_us if cold else launched.hot_us) / gpu.power_cap for launched in kernels]
    host_us = done_us = 0.0
    for launched, duration in zip(kernels, durations, strict=True):
        host_us += launched.launches * gpu.launch_us
        done_us = max(done_us, host_us + gpu.latency_us) + duration
    launches = sum(launched.launches for launched in kernels)
    return Truth(
        gpu_ms=sum(durations) / 1e3,
        enqueue_ms=host_us / 1e3,
        request_ms=(max(host_us, done_us) + gpu.sync_us) / 1e3,
        launches=launches,
        host_bound=launches > gpu.queue,
    )
