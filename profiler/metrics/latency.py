"""The three times of a launch: device time, time to enqueue, time of one request."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from mixprof.data.launch import Samples
from mixprof.lowerings import Lowered
from mixprof.machine import nvml, streams
from mixprof.sampling import Budget, Series, sample

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
    clocks: dict[str, object] | None = None  # of a GPU, from NVML


def measure(lowered: Lowered, device: str, mode: str, budget: Budget) -> Times:
    """Time a lowered forward. A CPU has `host_ms` only; in mode "cold" each forward finds empty caches."""
    assert lowered.forward is not None, "built only: there is nothing to run"
    forward, stream = lowered.forward, stream_of(lowered, device)
    flusher = stream.flusher if stream is not None else streams.cpu_flusher
    before = flusher() if mode == "cold" else None
    repeats = 1 if before else streams.forwards_per_sample(forward, stream)
    compiled = lowered.compilations()
    if stream is None:
        times = _on_cpu(forward, repeats, before, budget)
    else:
        times = _on_cuda(forward, stream, int(device.split(":")[1]), repeats, before, budget)
    recompiles = lowered.compilations() - compiled
    if not recompiles:
        return times
    reason = f"{recompiles} recompilation(s) among the samples: every launch must see one static shape"
    return replace(times, recompiles=recompiles, unsteady=reason)


def stream_of(lowered: Lowered, device: str) -> streams.Stream | None:
    """The stream that a lowered forward is enqueued on; None on a CPU."""
    if device == "cpu":
        return None
    return lowered.stream or streams.TorchStream(device)


def _on_cpu(forward: Callable[[], object], repeats: int, before: Before, budget: Budget) -> Times:
    series = sample(streams.host_sampler(forward, repeats, None, before), time.perf_counter, budget)
    return Times(None, None, Samples(series.kept, repeats), series.dropped, 0, _unsteady(series))


def _on_cuda(
    forward: Callable[[], object], stream: streams.Stream, index: int, repeats: int, before: Before, budget: Budget
) -> Times:
    read = nvml.reader(index)
    readings: list[nvml.Reading] = []

    def look() -> None:
        if read is not None:
            readings.append(read())

    series = sample(streams.gpu_sampler(forward, repeats, stream, before, look), time.perf_counter, budget)
    enqueue = streams.enqueue_sampler(forward, stream)
    enqueue_ms = Samples(tuple(enqueue() for _ in range(ENQUEUE_SAMPLES)), 1)
    host = sample(streams.host_sampler(forward, 1, stream, before), time.perf_counter, budget)
    return Times(
        Samples(series.kept, repeats),
        enqueue_ms,
        Samples(host.kept, 1),
        series.dropped,
        0,
        _unsteady(series) or _unsteady(host) or nvml.drifted(readings),
        nvml.verdict(readings),
        nvml.summary(readings),
    )


def _unsteady(series: Series) -> str | None:
    return None if series.steady else f"no steady state within {len(series.samples)} samples: the time kept drifting"
