"""The three times of a launch: device time, time to enqueue, time of one request."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from profiler import device as devices
from profiler.lowerings import Lowered
from profiler.sampling import Budget, Series, sample
from profiler.types import Samples

ENQUEUE_SAMPLES = 30


@dataclass(frozen=True)
class Times:
    """Raw samples of one launch. `steady` is None when all is well, else why the times are not to be trusted."""

    gpu_ms: Samples | None
    enqueue_ms: Samples | None
    host_ms: Samples | None
    dropped: int  # samples before the steady state
    unsteady: str | None


def measure(lowered: Lowered, device: str, mode: str, budget: Budget) -> Times:
    """Time a lowered forward. A CPU has `host_ms` only; in mode "cold" each forward finds empty caches."""
    before = devices.flusher(device) if mode == "cold" else None
    compilations = lowered.compilations()
    if device == "cpu":
        repeats = 1 if before else devices.forwards_per_sample(lowered.forward, device)
        series = _sample(devices.host_sampler(lowered.forward, repeats, device, before), budget)
        gpu_ms, enqueue_ms, host_ms = None, None, Samples(series.kept, repeats)
    else:
        repeats = 1 if before else devices.forwards_per_sample(lowered.forward, device)
        series = _sample(devices.gpu_sampler(lowered.forward, repeats, device, before), budget)
        gpu_ms = Samples(series.kept, repeats)
        enqueue = devices.enqueue_sampler(lowered.forward, device)
        enqueue_ms = Samples(tuple(enqueue() for _ in range(ENQUEUE_SAMPLES)), 1)
        host_ms = Samples(_sample(devices.host_sampler(lowered.forward, 1, device, before), budget).kept, 1)
    return Times(gpu_ms, enqueue_ms, host_ms, series.dropped, _unsteady(series, lowered.compilations() - compilations))


def _sample(take: Callable[[], float], budget: Budget) -> Series:
    return sample(take, time.perf_counter, budget)


def _unsteady(series: Series, recompiles: int) -> str | None:
    if recompiles:
        return f"{recompiles} recompilation(s) among the samples: every launch must see one static shape"
    if not series.steady:
        return f"no steady state within {len(series.samples)} samples: the time kept drifting"
    return None
