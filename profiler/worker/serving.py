"""A lowered case as a service under load, in one worker process: each batch is one forward."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from mixprof import lowerings
from mixprof.data.case import Case, is_simulated
from mixprof.data.errors import Unsupported
from mixprof.data.json import to_builtins
from mixprof.data.served import Percentile, Served, Shape, Tried
from mixprof.machine import cpu_contention
from mixprof.machine.devices import Device
from mixprof.metrics import Subject
from mixprof.metrics.serving import percentiles, queue, rate
from mixprof.metrics.serving.queue import Answered, Policy
from mixprof.worker import free, launch

MULTI = 8  # samples in a query of MLPerf's multi stream
SPIN_S = 5e-4  # before an arrival: a sleep may end late
WARM_UP_S = 0.2


@dataclass
class Engine:
    """Subjects of several batch sizes as one service. A batch takes the least size that holds it."""

    subjects: Mapping[int, Subject]
    ran: int = 0  # samples
    asked: int = 0

    @property
    def device(self) -> Device:
        return next(iter(self.subjects.values())).device

    def clock(self) -> float:
        return self.device.clock()

    def wait(self, seconds: float) -> None:
        """Sleep, and spin the last half millisecond where the clock moves by itself."""
        spin_s = 0.0 if is_simulated(self.device.name) else SPIN_S
        end = self.clock() + seconds
        if seconds > spin_s:
            self.device.wait(seconds - spin_s)
        while spin_s and self.clock() < end:
            pass

    def run(self, queries: int) -> None:
        size = min(size for size in self.subjects if size >= queries)
        self.subjects[size].forward()
        self.device.synchronize()
        self.ran, self.asked = self.ran + size, self.asked + queries

    def compilations(self) -> int:
        return sum(subject.lowered.compilations() for subject in self.subjects.values())


def serve(request: dict[str, Any]) -> dict[str, Any]:
    """Lower a case at every batch size and load it, by each scenario asked for. {"served": fields of Served, …}."""
    load = request["load"]
    if load["scenario"] == ["churn"]:
        return {"status": "ok", "served": [to_builtins(_churn(request))]}
    with contextlib.ExitStack() as stack:
        engine = _engine(request, stack)
        served = [_scenario(name, engine, request) for name in load["scenario"]]
    return {"status": "ok", "served": [to_builtins(each) for each in served]}


def _engine(request: Mapping[str, Any], stack: contextlib.ExitStack) -> Engine:
    """All sizes lowered, checked and warm. Everything is lowered before the first runs in inference mode."""
    ready = [launch.lower({**request, **size}) for size in request["sizes"]]
    if len(ready) > 1 and is_simulated(ready[0].subject.case.device):
        raise Unsupported("sim:0 has a clock of its own for each batch size: use --max-batch 1")
    engine = Engine({each.subject.case.batch: stack.enter_context(each.running()) for each in ready})
    for subject in engine.subjects.values():
        _check(subject)
        start = engine.clock()
        while engine.clock() - start < WARM_UP_S:
            engine.run(subject.case.batch)
    return engine


def _check(subject: Subject) -> None:
    """Unsupported for what cannot run here, or whose outputs are wrong."""
    if subject.lowered.forward is None:
        raise Unsupported(f"{subject.case.device} is not there: nothing to load")
    checked = launch.check(subject)
    if checked.status != "ok":
        raise Unsupported(f"batch {subject.case.batch}: {checked.status}: {checked.reason}")


def _scenario(name: str, engine: Engine, request: Mapping[str, Any]) -> Served:
    load, case = request["load"], Case.from_json(request["case"])
    engine.ran = engine.asked = 0
    before, compiled = cpu_contention.read(), engine.compilations()
    served = SCENARIOS[name](engine, load, Served(case.to_json(), name, settings=load))
    return replace(
        served,
        padded_share=1 - engine.asked / engine.ran if engine.ran else None,
        recompiles=engine.compilations() - compiled,
        lost_cpu_share=cpu_contention.lost_share(before, cpu_contention.read()) if case.device == "cpu" else None,
        simulated=is_simulated(case.device),
    )


def _stream(samples: int, share: float) -> Callable[[Engine, Mapping[str, Any], Served], Served]:
    """Single and multi stream. share: of MLPerf's percentile, whose early stopping says how many queries are enough."""

    def measured(engine: Engine, load: Mapping[str, Any], served: Served) -> Served:
        least = percentiles.least_under(1, share) + 1
        most = max(engine.subjects)
        answered = queue.closed_loop(min(least, load["most_queries"]), load["seconds"], samples, engine, most)
        return _figures(answered, served, share, samples)

    return measured


def _figures(answered: Answered, served: Served, share: float, samples: int = 1) -> Served:
    latencies, cycles = answered.latencies_s, answered.cycles
    estimate, least = percentiles.stopped_early(latencies, share)
    ended = answered.answered_s[np.isfinite(answered.answered_s)]
    seconds = float(ended[-1] - answered.scheduled_s[0])
    return replace(
        served,
        queries=len(latencies),
        seconds=seconds,
        per_second=samples * len(ended) / seconds,
        percentiles=tuple(percentiles.percentile(latencies, each, cycles) for each in percentiles.SHARES),
        early_stopping_ms=estimate,
        early_stopping_needs=least,
        mean_batch=float(np.mean(answered.batches)) if answered.batches else None,
    )


def _offline(engine: Engine, load: Mapping[str, Any], served: Served) -> Served:
    samples, seconds = queue.offline(load["seconds"], engine, max(engine.subjects))
    return replace(served, queries=samples, seconds=seconds, per_second=samples / seconds)


def _server(engine: Engine, load: Mapping[str, Any], served: Served) -> Served:
    """Poisson arrivals at the rate asked for, and the search for the largest that keeps the limit."""
    policy = Policy(load["max_batch"], load["max_wait_ms"] / 1e3)
    limit_s = None if load["limit_ms"] is None else load["limit_ms"] / 1e3
    seeds = iter(range(load["seed"] << 20, (load["seed"] + 1) << 20))

    def answered(per_second: float, hopeless_s: float | None = limit_s) -> Answered:
        least = percentiles.least_under(1, rate.SHARE) + 1
        wanted = min(max(load["seconds"] * per_second, least / (1 - rate.WARM_UP)), load["most_queries"])
        queries = min(wanted, queue.LONGER * load["seconds"] * per_second)
        arrivals = queue.poisson(per_second, queries / per_second, next(seeds))
        return queue.open_loop(arrivals, engine, policy, hopeless_s, per_second)

    if load["rate"] is not None:
        counted = answered(load["rate"], None).after(rate.WARM_UP)
        served = replace(_figures(counted, served, rate.SHARE), rate=load["rate"])
    if limit_s is None:
        return served
    found = rate.search(answered, limit_s, _capacity(engine))
    words = {"keeps": True, "breaks": False, "open": None}
    tried = tuple(Tried(each, words[word], served.launch) for each, word in found.tried)
    return replace(served, limit_ms=load["limit_ms"], keeps=found.keeps, breaks=found.breaks, tried=tried)


def _capacity(engine: Engine) -> float:
    """Samples a second at the size that has the most of them."""
    best = 0.0
    for size in engine.subjects:
        times = []
        for _ in range(5):
            start = engine.clock()
            engine.run(size)
            times.append(engine.clock() - start)
        best = max(best, size / statistics.median(times))
    return best


SCENARIOS: dict[str, Callable[[Engine, Mapping[str, Any], Served], Served]] = {
    "single": _stream(1, 0.9),
    "multi": _stream(MULTI, 0.99),
    "offline": _offline,
    "server": _server,
}


def _churn(request: Mapping[str, Any]) -> Served:
    """Queries of resolutions drawn at random, one after another; a shape is built when it first comes."""
    load, case = request["load"], Case.from_json(request["case"])
    drawn = np.random.default_rng(load["seed"]).integers(len(request["sizes"]), size=load["queries"])
    one = load["engines"] == "one"
    lower = free.lowering(request) if one else lambda size: launch.lower({**request, **size}).subject
    subjects: dict[int, Subject] = {}
    times: dict[int, list[float]] = {}
    recompiles = dict.fromkeys(range(len(request["sizes"])), 0)
    for place in map(int, drawn):
        if place not in subjects:
            subjects[place] = lower(request["sizes"][place])
            if subjects[place].lowered.forward is None:
                raise Unsupported(f"{case.device} is not there: nothing to load")
        with _inference(subjects[place]), free.refused(subjects[place]) if one else contextlib.nullcontext():
            elapsed_ms, compiled = _timed(subjects[place])
        recompiles[place] += compiled if one or place in times else 0
        times.setdefault(place, []).append(elapsed_ms)
    with contextlib.ExitStack() as stack:
        for subject in subjects.values():
            stack.enter_context(_inference(subject))
            _check(subject)
            subject.lowered.close()
    shapes = tuple(_shape(subjects[place], times[place], recompiles[place]) for place in sorted(subjects))
    later = [each for of in times.values() for each in of[1:]]
    return Served(
        case.to_json(), "churn", queries=len(drawn), shapes=shapes, percentiles=_percentiles(later), settings=load,
        recompiles=sum(recompiles.values()), simulated=is_simulated(case.device),
    )  # fmt: skip


def _percentiles(times: Sequence[float]) -> tuple[Percentile, ...]:
    """Of forwards one after another, none of which waits for another. times: in milliseconds."""
    if not times:
        return ()
    seconds = np.array(times) / 1e3
    return tuple(percentiles.percentile(seconds, share, np.arange(len(seconds))) for share in percentiles.SHARES)


@contextlib.contextmanager
def _inference(subject: Subject) -> Iterator[None]:
    mode = lowerings.entry_of(subject.case.lowering).inference_mode and not subject.differentiates
    with torch.inference_mode(mode), torch.no_grad():
        yield


def _timed(subject: Subject) -> tuple[float, int]:
    """Milliseconds of one forward, its result ready, and how often something was compiled in it."""
    device, compiled = subject.device, subject.lowered.compilations()
    start = device.clock()
    subject.forward()
    device.synchronize()
    return 1e3 * (device.clock() - start), subject.lowered.compilations() - compiled


def _shape(subject: Subject, times: Sequence[float], recompiles: int) -> Shape:
    case, later = subject.case, times[1:]
    median = statistics.median(later) if later else None
    return Shape(
        case.resolution, len(times), subject.lowered.build_s, times[0], median, recompiles, _percentiles(later)
    )
