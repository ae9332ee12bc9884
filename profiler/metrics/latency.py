"""The three times of a launch: device time, time to enqueue, time of one request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from mixprof.data.launch import Queued, Samples
from mixprof.lowerings import Lowered
from mixprof.machine import nvml, streams
from mixprof.machine.devices import Device
from mixprof.sampling import Budget, Series, sample

ENQUEUE_SAMPLES = 30
CONTROLS = 40  # samples of a cold case behind a spin in the place of the flush
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
    queued: Queued | None = None
    control_ms: Samples | None = None  # of a cold case, its caches left as they were


def measure(lowered: Lowered, device: Device, mode: str, budget: Budget) -> Times:
    """Time a lowered forward. A CPU has `host_ms` only; in mode "cold" each forward finds empty caches."""
    assert lowered.forward is not None, "built only: there is nothing to run"
    forward, compiled = lowered.forward, lowered.compilations()
    before = device.flusher() if mode == "cold" else None
    times = (_on_gpu if device.queue else _on_cpu)(forward, device, before, budget)
    recompiles = lowered.compilations() - compiled
    if not recompiles:
        return times
    reason = f"{recompiles} recompilation(s) among the samples: every launch must see one static shape"
    return replace(times, recompiles=recompiles, unsteady=reason)


def _on_cpu(forward: Callable[[], object], device: Device, before: Before, budget: Budget) -> Times:
    repeats = 1 if before else streams.forwards_per_sample(forward, device)
    series = sample(streams.host_sampler(forward, repeats, device, before), device.clock, budget)
    return Times(None, None, Samples(series.kept, repeats), series.dropped, 0, _unsteady(series))


def _on_gpu(forward: Callable[[], object], device: Device, before: Before, budget: Budget) -> Times:
    read = device.reader()
    readings: list[nvml.Reading] = []

    def look() -> None:
        if read is not None:
            readings.append(read())

    queue = streams.queue_of(forward, device, before)
    try:
        series = sample(streams.gpu_sampler(forward, queue, device, before, look), device.clock, budget)
    except streams.GateOpened:
        queue = replace(queue, gated=False)
        series = sample(streams.gpu_sampler(forward, queue, device, before, look), device.clock, budget)
    enqueue = streams.enqueue_sampler(forward, device)
    enqueue_ms = Samples(tuple(enqueue() for _ in range(ENQUEUE_SAMPLES)), 1)
    host = sample(streams.host_sampler(forward, 1, device, before), device.clock, budget)
    return Times(
        Samples(series.kept, queue.forwards),
        enqueue_ms,
        Samples(host.kept, 1),
        series.dropped,
        0,
        _unsteady(series) or _unsteady(host) or nvml.drifted(readings),
        nvml.verdict(readings),
        {**nvml.summary(readings), "by_queue": _by_queue(readings)},
        Queued(queue.launches, queue.gated),
        None if before is None else _control(forward, queue, device, before),
    )


def _by_queue(readings: list[nvml.Reading]) -> dict[str, list[int | None]]:
    """Clock and temperature at each queue, in their order."""
    names = ("sm_clock_mhz", "temperature_c")
    return {name: [getattr(reading, name) for reading in readings] for name in names}


def _control(
    forward: Callable[[], object], queue: streams.Queue, device: Device, flush: Callable[[], object]
) -> Samples:
    """Samples like those of a cold case, behind a spin as long as its flush, which leaves the caches alone."""
    times = []
    for _ in range(5):
        device.synchronize()
        begin = device.event()
        flush()
        end = device.event()
        device.synchronize()
        times.append(device.elapsed_ms(begin, end))
    flush_ms = sorted(times)[2]
    take = streams.gpu_sampler(forward, queue, device, lambda: device.spin(flush_ms))
    return Samples(tuple(take() for _ in range(CONTROLS)), queue.forwards)


def _unsteady(series: Series) -> str | None:
    return None if series.steady else f"no steady state within {len(series.samples)} samples: the time kept drifting"
