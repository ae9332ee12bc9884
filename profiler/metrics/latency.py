"""The three times of a launch: device time, time to enqueue, time of one request."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from profiler import clocks
from profiler import device as devices
from profiler.lowerings import Lowered
from profiler.sampling import Budget, Series, sample
from profiler.types import Samples

ENQUEUE_SAMPLES = 30
Before = Callable[[], object] | None


@dataclass(frozen=True)
class Times:
    """Raw samples of one launch. `unsteady` and `throttled` say why they are not to be trusted, if they are not."""

    gpu_ms: Samples | None
    enqueue_ms: Samples | None
    host_ms: Samples | None
    dropped: int  # samples before the steady state
    recompiles: int  # among the samples
    unsteady: str | None
    throttled: str | None = None
    clocks: dict[str, Any] | None = None  # of a GPU, from NVML


def measure(lowered: Lowered, device: str, mode: str, budget: Budget) -> Times:
    """Time a lowered forward. A CPU has `host_ms` only; in mode "cold" each forward finds empty caches."""
    before = devices.flusher(device) if mode == "cold" else None
    repeats = 1 if before else devices.forwards_per_sample(lowered.forward, device)
    compiled = lowered.compilations()
    times = _on_cpu if device == "cpu" else _on_cuda
    found = times(lowered, device, repeats, before, budget)
    recompiles = lowered.compilations() - compiled
    if not recompiles:
        return found
    reason = f"{recompiles} recompilation(s) among the samples: every launch must see one static shape"
    return replace(found, recompiles=recompiles, unsteady=reason)


def _on_cpu(lowered: Lowered, device: str, repeats: int, before: Before, budget: Budget) -> Times:
    series = sample(devices.host_sampler(lowered.forward, repeats, device, before), time.perf_counter, budget)
    return Times(None, None, Samples(series.kept, repeats), series.dropped, 0, _unsteady(series))


def _on_cuda(lowered: Lowered, device: str, repeats: int, before: Before, budget: Budget) -> Times:
    read = clocks.reader(int(device.split(":")[1]))
    readings: list[clocks.Reading] = []

    def look() -> None:
        if read is not None:
            readings.append(read())

    gpu = devices.gpu_sampler(lowered.forward, repeats, device, before, look)
    series = sample(gpu, time.perf_counter, budget)
    enqueue = devices.enqueue_sampler(lowered.forward, device)
    enqueue_ms = Samples(tuple(enqueue() for _ in range(ENQUEUE_SAMPLES)), 1)
    host = sample(devices.host_sampler(lowered.forward, 1, device, before), time.perf_counter, budget)
    return Times(
        Samples(series.kept, repeats),
        enqueue_ms,
        Samples(host.kept, 1),
        series.dropped,
        0,
        _unsteady(series) or _unsteady(host) or clocks.drifted(readings),
        clocks.verdict(readings),
        clocks.summary(readings),
    )


def _unsteady(series: Series) -> str | None:
    return None if series.steady else f"no steady state within {len(series.samples)} samples: the time kept drifting"
