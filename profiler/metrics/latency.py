"""The three times of a launch: device time, time to enqueue, time of one request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

from mixprof.data.launch import Queued, Samples
from mixprof.lowerings import Lowered
from mixprof.machine import nvml, streams
from mixprof.machine.devices import Device
from mixprof.models.step import Step
from mixprof.sampling import Budget, Series, sample

ENQUEUE_SAMPLES = 30
PARTS = 30  # steps whose parts are timed
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
    flush = device.flusher() if mode == "cold" else None
    before = ahead(lowered.before, flush)
    if device.queue:
        times = _on_gpu(forward, device, before, budget, lowered.before)
    else:
        times = _on_cpu(forward, device, before, budget)
    recompiles = lowered.compilations() - compiled
    if not recompiles:
        return times
    reason = f"{recompiles} recompilation(s) among the samples: every launch must see one static shape"
    return replace(times, recompiles=recompiles, unsteady=reason)


def ahead(of_step: Before, flush: Before) -> Before:
    """What runs untimed before each forward: what that needs, then the flush."""
    if of_step is None or flush is None:
        return of_step or flush
    return lambda: (of_step(), flush())


def _on_cpu(forward: Callable[[], object], device: Device, before: Before, budget: Budget) -> Times:
    repeats = 1 if before else streams.forwards_per_sample(forward, device)
    series = sample(streams.host_sampler(forward, repeats, device, before), device.clock, budget)
    return Times(None, None, Samples(series.kept, repeats), series.dropped, 0, _unsteady(series))


def _on_gpu(forward: Callable[[], object], device: Device, before: Before, budget: Budget, needs: Before) -> Times:
    read = device.reader()
    readings: list[nvml.Reading] = []

    def look() -> None:
        if read is not None:
            readings.append(read())

    queue = streams.queue_of(forward, device, before, needs)
    try:
        series = sample(streams.gpu_sampler(forward, queue, device, before, look), device.clock, budget)
    except streams.GateOpened:
        queue = replace(queue, gated=False)
        series = sample(streams.gpu_sampler(forward, queue, device, before, look), device.clock, budget)
    enqueue = streams.enqueue_sampler(forward, device, before=needs)
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
        None if before is None or needs is not None else _control(forward, queue, device, before),
    )


def parts(step: Step, device: Device) -> dict[str, Samples]:
    """The time of each part of a training step, in milliseconds, over some steps: of the device where it has a queue.

    Between two parts of a host stands a synchronise, between those of a device an event.
    """
    calls, times = step.parts, {name: list[float]() for name in step.parts}
    for _ in range(PARTS):
        taken = (_parts_on_gpu if device.queue else _parts_on_cpu)(calls, device)
        for name, ms in taken.items():
            times[name].append(ms)
    return {name: Samples(tuple(each), 1) for name, each in times.items()}


def _parts_on_cpu(calls: dict[str, Callable[[], None]], device: Device) -> dict[str, float]:
    return {name: streams.host_ms(call, 1, device) for name, call in calls.items()}


def _parts_on_gpu(calls: dict[str, Callable[[], None]], device: Device) -> dict[str, float]:
    """Behind one another without a gate: where the host is slower than the device, its gaps are in them."""
    device.synchronize()
    marks = {"": device.event()}
    for name, call in calls.items():
        call()
        marks[name] = device.event()
    device.synchronize()
    return {name: device.elapsed_ms(*pair) for name, pair in zip(calls, pairwise(marks.values()), strict=True)}


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
