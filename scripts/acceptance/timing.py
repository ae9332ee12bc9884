"""Whether times are true: spins of known length, one to hundreds a forward, by every way there is to time them."""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Callable, Mapping
from dataclasses import replace

from acceptance import targets
from acceptance.frame import Seen, Skipped, Value
from acceptance.targets import Target, samples
from mixprof.machine import streams
from mixprof.machine.devices import Call
from mixprof.machine.streams import Queue, gpu_sampler, queue_of

LENGTHS_US = (2.0, 5.0, 20.0, 100.0, 500.0)
COUNTS = (1, 6, 60, 260)  # launches of a forward
SAMPLES = 12
SLOPE = {True: 0.01, False: 0.03}  # by which it may miss 1, simulated or not
ADDED_US = {True: 0.1, False: 3.0}  # to each launch, at most: a real device needs time between two kernels
Points = dict[tuple[float, int], list[float]]  # (length of a spin, spins a forward) -> milliseconds a forward


def gated(device: str) -> Seen:
    """Our sampler: spins behind a gate, enqueued before the first of them runs."""
    target = targets.of(device)
    seen = of_grid(target, target.spins, device)
    return replace(seen, values={**seen.values, **_silence(target)})


def graph(device: str) -> Seen:
    """Our sampler over the same spins as one CUDA graph."""
    target = targets.of(device)
    return of_grid(target, target.graph, device)


def of_grid(target: Target, make: Callable[[float, int], Call], device: str) -> Seen:
    """Gated times of all spins beside their lengths. make: (length of a spin in us, spins) -> forward."""
    notes: list[str] = []
    seen = _seen(target, lambda us, count: _gated(target, make(us, count), notes), device)
    return replace(seen, wrong=(*seen.wrong, *notes))


def cupti(device: str) -> Seen:
    """What CUPTI tells of each kernel, through torch.profiler."""
    target = targets.of(device)
    return _seen(target, lambda us, count: _profiled(target.spins(us, count), count), device)


def do_bench(device: str) -> Seen:
    """Triton's do_bench, which enqueues without a gate: where the host is slower it reads the host."""
    try:
        bench = importlib.import_module("triton.testing").do_bench
    except ImportError as error:
        raise Skipped("triton is not installed") from error
    target = targets.of(device)
    points = {
        (us, count): [float(bench(target.spins(us, count), warmup=10, rep=40, return_mode="median"))]
        for us in (2.0, 20.0, 100.0)
        for count in COUNTS
    }
    values = {f"over_{us:g}us_x{count}": 1000 * times[0] / (us * count) for (us, count), times in points.items()}
    return Seen(values, _named(points))


def ungated(device: str) -> Seen:
    """Six spins of 2.5 us as they were timed without a gate, beside the gated time: what a host in the way adds."""
    target = targets.of(device)
    run = target.spins(2.5, 6)
    without = samples(gpu_sampler(run, Queue(67, 8), target.device), 24)
    behind = _gated(target, run)
    ratio = statistics.median(without) / statistics.median(behind)
    wrong = () if ratio > 0.97 else (f"without a gate the time is {ratio:.3f} of the gated one",)
    return Seen({"ungated_over_gated": ratio}, {"ungated_ms": without, "gated_ms": behind}, wrong,
                virtual_s=_virtual(target, device))  # fmt: skip


def queue(device: str) -> Seen:
    """How many launches wait behind a gate before the host does, and whether our count of a forward's is right."""
    target = targets.of(device)
    depth = _depth(target)
    counted = {count: streams.places(target.spins(2.0, count), target.device) for count in COUNTS}
    wrong = [
        f"{places} places were counted for {count} launches" for count, places in counted.items() if places != count
    ]
    wrong += [f"the queue takes {depth} launches, and {target.device.queue} are put behind a gate"] * (
        depth <= target.device.queue
    )
    many = queue_of(target.spins(2.0, depth + 200), target.device)
    wrong += ["a forward of more launches than the queue takes is gated"] * many.gated
    values = {"depth": depth, "gated_beyond": many.gated, **{f"places_{each}": counted[each] for each in counted}}
    return Seen(values, wrong=tuple(wrong), virtual_s=_virtual(target, device))


def _depth(target: Target) -> int:
    """Launches that a queue takes while its first one runs."""
    gpu = target.device
    gpu.synchronize()
    gpu.spin(400.0)
    for count in range(1, 20_000):
        before = gpu.clock()
        gpu.spin(0.0)
        if gpu.clock() - before > 0.005:
            gpu.synchronize()
            return count
    gpu.synchronize()
    return 20_000


def _gated(target: Target, run: Call, notes: list[str] | None = None) -> list[float]:
    """Samples of our sampler. What kept them from being gated is noted, and costs no other point its samples."""
    notes = [] if notes is None else notes
    try:
        queue = queue_of(run, target.device)
        if not queue.gated:
            notes.append(f"a forward of {queue.launches} launches was not gated")
        return samples(gpu_sampler(run, queue, target.device), SAMPLES)
    except RuntimeError as error:
        notes.append(str(error))
        return [0.0]


def _profiled(run: Call, count: int) -> list[float]:
    """Milliseconds of a forward's kernels, the gaps between them left out, for each of some forwards."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    run()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as trace:
        for _ in range(5):
            run()
        torch.cuda.synchronize()
    assert trace.profiler is not None
    events = [event for event in trace.profiler.kineto_results.events() if "spin" in event.name()]
    lengths = [event.duration_ns() / 1e6 for event in sorted(events, key=lambda event: event.start_ns())]
    if len(lengths) != 5 * count:
        raise RuntimeError(f"torch.profiler tells of {len(lengths)} spins, expected {5 * count}")
    return [sum(lengths[first : first + count]) for first in range(0, len(lengths), count)]


def _silence(target: Target) -> Mapping[str, Value]:
    """Microseconds between two events with nothing between them."""
    gpu, times = target.device, []
    for _ in range(20):
        gpu.synchronize()
        gpu.spin(1.0)
        begin = gpu.event()
        end = gpu.event()
        gpu.synchronize()
        times.append(1000 * gpu.elapsed_ms(begin, end))
    return {"empty_us": statistics.median(times)}


def _seen(target: Target, measure: Callable[[float, int], list[float]], device: str) -> Seen:
    """Times of the whole grid beside the truth, a line for each number of launches: slope and what each launch adds."""
    points: Points = {(us, count): measure(us, count) for us in LENGTHS_US for count in COUNTS}
    simulated, values, wrong = device.startswith("sim"), dict[str, Value](), []
    for count in COUNTS:
        each_us = {us: 1000 * statistics.median(points[us, count]) / count for us in LENGTHS_US}
        slope = (each_us[500.0] - each_us[100.0]) / 400.0
        added = statistics.median(each_us[us] - slope * us for us in LENGTHS_US[:3])
        values |= {f"slope_x{count}": slope, f"added_us_x{count}": added}
        if abs(slope - 1) > SLOPE[simulated]:
            wrong.append(f"with {count} launches a microsecond reads {slope:.4f}")
        if not -0.2 < added < ADDED_US[simulated]:
            wrong.append(f"with {count} launches each one adds {added:.2f} us")
    return Seen(values, _named(points), tuple(wrong), virtual_s=_virtual(target, device))


def _named(points: Points) -> dict[str, list[float]]:
    return {f"{us:g}us_x{count}_ms": times for (us, count), times in points.items()}


def _virtual(target: Target, device: str) -> float | None:
    """Seconds that passed on a simulated device."""
    return target.device.clock() if device.startswith("sim") else None
