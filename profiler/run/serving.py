"""`serve-test`: each case lowered in a worker process and put under load, once in each launch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from mixprof.data.case import is_simulated
from mixprof.data.errors import UsageError
from mixprof.data.json import Json, decode
from mixprof.data.served import Served
from mixprof.machine.process import default_threads
from mixprof.plan.axes import Planned, plan_case
from mixprof.plan.load import Load
from mixprof.plan.sources import Registry
from mixprof.run import launching
from mixprof.run.client import Server
from mixprof.run.executors import local
from mixprof.run.launching import Bench
from mixprof.run.session import planned_cases, session
from mixprof.run.sweep import Sweep


def serve(sweep: Sweep, load: Load, registry: Registry, say: Callable[[str], None]) -> list[Served]:
    """Load every case of a sweep, launch by launch, each in a process of its own. Nothing is left behind."""
    measure = sweep.measure
    with session(measure, registry, sweep.given) as asked:
        planned, _ = planned_cases(sweep.groups, asked)
    entries = [entry for entry in planned if not entry.case.is_anchor]
    served: list[Served] = []
    with tempfile.TemporaryDirectory(prefix="mixprof-serve-") as folder:
        for number in range(load.launches):
            threads = measure.threads or default_threads()
            with Server(Path(folder), local.preload(entries), threads, measure.allocator) as server:
                bench, seeded = Bench(server, measure, round=number), replace(load, seed=load.seed + number)
                for group in _groups(entries, load):
                    results = _served(group, bench, seeded)
                    served += [replace(each, launch=number) for each in results]
                    say(f"{group[0].case.label()}: {results[0].status}")
    return served


def _groups(entries: Sequence[Planned], load: Load) -> list[list[Planned]]:
    """What is lowered into one process: a case at every batch size, or at every resolution where these change."""
    if load.scenario == ("churn",):
        by_rest: dict[object, list[Planned]] = {}
        for entry in entries:
            by_rest.setdefault(replace(entry.case, resolution=(0, 0)), []).append(entry)
        if any(len(group) < 2 for group in by_rest.values()):
            raise UsageError("got one resolution for --scenario churn, expected several: --resolutions 96,128,160")
        return list(by_rest.values())
    return [[_at(entry, batch) for batch in sizes(load.max_batch)] for entry in entries]


def sizes(most: int) -> list[int]:
    """Powers of two up to the largest batch, and that: what an engine of static shapes is built for."""
    powers = [1 << power for power in range(most.bit_length())]
    return sorted({*(power for power in powers if power <= most), most})


def _at(entry: Planned, batch: int) -> Planned:
    case = replace(entry.case, batch=batch)
    return plan_case(case, entry.source, layout_is_default=entry.layout_is_default)


def _served(group: Sequence[Planned], bench: Bench, load: Load) -> list[Served]:
    """The scenarios of one service; what cannot be, with its reason."""
    first = group[0].case
    failed = [Served(first.to_json(), name, limit_ms=load.limit_ms) for name in load.scenario]
    for entry in group:
        if (reason := local.impossible(entry)) is not None:
            return [replace(each, status=reason.status, reason=reason.reason) for each in failed]
    if load.engines == "one" and (words := _of_one_size(group[0])):
        return [replace(each, status="unsupported", reason=f"{words}: use --engines each") for each in failed]
    try:
        requested = _requested(group, bench, load)
    except _Failed as error:
        status, reason_words = error.args
        return [replace(each, status=status, reason=reason_words) for each in failed]
    request = launching.request_of(group[0])
    timeout_s = bench.measure.timeout
    values = bench.server.run(
        "serve", timeout_s, **request, measure=bench.settings, sizes=requested, load=asdict(load)
    ).values
    if values["status"] != "ok":
        return [replace(each, status=values["status"], reason=values["reason"]) for each in failed]
    return [decode(each, Served) for each in values["served"]]


class _Failed(Exception):
    """A status and a reason."""


def _of_one_size(entry: Planned) -> str | None:
    """Why a model has no engine of free height and width; None where one can be tried."""
    model, source = entry.case.model, entry.source
    if source.artifact is not None:
        return f"{model}: a file is lowered at fixed sizes"
    return "sim:0 simulates engines of fixed sizes" if is_simulated(entry.case.device) else None


def _requested(group: Sequence[Planned], bench: Bench, load: Load) -> list[Json]:
    """Every size as the worker is told of it. One engine has one set of weights, the first's, and no race's winner."""
    requested: list[Json] = []
    one = load.engines == "one"
    for entry in group:
        prepared = _prepared(entry, bench, requested[0]["reference"] if requested and one else None)
        choices = None if one else launching.choices_of(bench.server, entry, bench.settings)
        requested.append({**prepared, "choices": choices})
    return requested


def _prepared(entry: Planned, bench: Bench, state_of: str | None) -> Json:
    """A size as the worker is told of it, its reference made. state_of: a reference whose weights it has."""
    reference = launching.reference_of(bench.server, entry.case)
    request = launching.request_of(entry)
    if state_of is not None:
        reference = reference.with_name(f"{reference.stem}.as.{Path(state_of).name}")
        request["state_of"] = state_of
    if not reference.exists():
        values = bench.server.run("prepare", bench.measure.timeout, reference=str(reference), **request).values
        if values["status"] != "ok":
            raise _Failed(values["status"], values["reason"])
    return {"case": entry.case.to_json(), "reference": str(reference)}


def keeping(served: Iterable[Served]) -> tuple[float | None, float | None]:
    """The interval of the largest rate over launches: the hull of theirs; None for an end that none of them has."""
    of = list(served)
    keeps, breaks = [each.keeps for each in of], [each.breaks for each in of]
    low = None if None in keeps else min(rate for rate in keeps if rate is not None)
    high = None if None in breaks else max(rate for rate in breaks if rate is not None)
    return low, high
