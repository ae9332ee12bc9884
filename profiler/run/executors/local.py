"""Run the launches of a sweep on this machine, one at a time, in rounds, into a run folder."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from mixprof import lowerings
from mixprof.data import run_folder
from mixprof.data.cache import folder as cache_folder
from mixprof.data.cache import own_folder
from mixprof.data.types import Case, Launch, Record, digest
from mixprof.machine import cpu_contention
from mixprof.machine.device import default_threads, total_memory_bytes
from mixprof.plan.axes import Measure, Planned
from mixprof.run.client import Server, ServerDied, source_request
from mixprof.worker.server import write_result

LEAST_FREE_BYTES = 1 << 20
COUNTS = ("params", "macs", "flops", "uncounted_ops", "matrix_macs", "vector_macs", "min_bytes")


class Progress(Protocol):
    """What is told as a sweep goes on."""

    def begin(self, case: Case, round: int) -> None: ...

    def end(self, case: Case, launch: Launch) -> None: ...


@dataclass
class Journal:
    """The launches and records of a run so far. What is added is on disk when the call returns."""

    run: Path
    launches: dict[Case, list[Launch]]
    recorded: set[Case]
    layers: bool = False  # what was timed and has layers gets one more launch, for these, before its record

    @classmethod
    def open(cls, run: Path, layers: bool = False) -> Journal:
        launches: dict[Case, list[Launch]] = {}
        for case, launch in run_folder.read_launches(run):
            launches.setdefault(case, []).append(launch)
        return cls(run, launches, {record.case for record in run_folder.read_records(run)}, layers)

    def add(self, case: Case, launch: Launch, rounds: int) -> None:
        try:
            run_folder.append_launch(self.run, case, launch)
        except ValueError as error:  # NaN or infinity, which JSON has not
            launch = Launch("crashed", f"a measured value cannot be written: {error}", round=launch.round)
            run_folder.append_launch(self.run, case, launch)
        self.launches.setdefault(case, []).append(launch)
        self.close(case, rounds)

    def close(self, case: Case, rounds: int) -> None:
        """Write the case's record if its last launch is in: the last round's, its layers', or one that is not ok."""
        launches = self.launches.get(case, [])
        timed, profiled = ([one for one in launches if (one.round >= rounds) == after] for after in (False, True))
        if case in self.recorded or not timed:
            return
        if timed[-1].status == "ok" and (len(timed) < rounds or (self.wants_layers(case) and not profiled)):
            return
        run_folder.append_record(self.run, with_layers(assemble(case, timed), profiled))
        self.recorded.add(case)

    def wants_layers(self, case: Case) -> bool:
        return self.layers and lowerings.layers_of(case.lowering) is not None


def assemble(case: Case, launches: list[Launch]) -> Record:
    """A case's launches as one record. The first launch that is not ok gives it status and reason."""
    failed = next((launch for launch in launches if launch.status != "ok"), None)
    told = failed or launches[-1]
    builds = [launch for launch in launches if launch.build_s is not None]
    slowest = max(builds, key=lambda launch: launch.build_s or 0.0, default=None)
    counts = told.counts or {}
    errors = [launch.relative_error for launch in launches if launch.relative_error is not None]
    return Record(
        case=case,
        status=told.status,
        reason=told.reason,
        launches=tuple(launches),
        build_s=slowest.build_s if slowest else None,
        build_cached=slowest.build_cached if slowest else None,
        artifact_bytes=(slowest or told).artifact_bytes,
        params=counts.get("params"),
        macs=counts.get("macs"),
        flops=counts.get("flops"),
        uncounted_ops=None if counts.get("uncounted_ops") is None else tuple(counts["uncounted_ops"]),
        **{name: counts.get(name) for name in ("matrix_macs", "vector_macs", "min_bytes")},
        memory=_largest([launch.memory for launch in launches if launch.memory is not None]),
        energy=told.energy,
        relative_error=max(errors, default=None),
        proof=(slowest or told).proof,
        environment=told.environment,
    )


def with_layers(record: Record, profiled: list[Launch]) -> Record:
    """The record with the times of its layers, or why there are none: they change nothing else of it."""
    if not profiled or record.status != "ok":
        return record
    told = profiled[-1]
    reason = f"{told.status}" + (f": {told.reason}" if told.reason else "")
    more = told.proof if told.status == "ok" and told.proof else {"layers_missing": reason}
    return replace(record, proof={**(record.proof or {}), **more})


def _largest(memories: list[dict[str, int | None]]) -> dict[str, int | None] | None:
    """The largest of each figure over the launches."""
    if not memories:
        return None
    names = dict.fromkeys(name for memory in memories for name in memory)
    known = {name: [value for memory in memories if (value := memory.get(name)) is not None] for name in names}
    return {name: max(values, default=None) for name, values in known.items()}


def preload(planned: Iterable[Planned]) -> tuple[str, ...]:
    """What a server imports once for all launches of these cases."""
    names = [name for entry in planned for name in lowerings.parse(entry.case.lowering)[0].preload]
    # What building on `meta` imports at its first call: a second for each launch, once for a server.
    names = ["torch._dynamo", *names]
    metrics = ("latency", "accuracy", "memory", "memory_plan", "flops")
    return tuple(dict.fromkeys((*names, "mixprof.worker.jobs", *(f"mixprof.metrics.{each}" for each in metrics))))


def check_cache(planned: Iterable[Planned]) -> None:
    """Raise UsageError where engines are asked for and others could have written what is kept of them."""
    if any(lowerings.parse(entry.case.lowering)[0].engine for entry in planned):
        own_folder(cache_folder())


def execute(
    planned: list[Planned], run: Path, measure: Measure, progress: Progress, stop: Callable[[], bool] = lambda: False
) -> None:
    """Run every case that has no record yet. Each launch is journalled when it ends.

    A round is a seeded permutation of the cases under a server executed afresh for it. After
    `stop()` turns true the launch that runs is finished and nothing more is started.
    """
    run = run.resolve()
    journal = Journal.open(run, measure.layers)
    threads = measure.threads or default_threads()
    settings = {**asdict(measure), "threads": threads}
    scratch = own_folder(run / "scratch")
    check_cache(planned)
    for entry in planned:
        journal.close(entry.case, measure.rounds)
        reason = _impossible(entry)
        if entry.case not in journal.recorded and reason is not None:
            journal.add(entry.case, reason, measure.rounds)
    for round in range(measure.rounds):
        waiting = [each for each in planned if _is_due(journal, each.case, round)]
        random.Random(f"{measure.seed}/{round}").shuffle(waiting)
        if not waiting or stop():
            continue
        _run_round(waiting, round, journal, scratch, settings, measure, progress, stop)
    waiting = [each for each in planned if _wants_layers(journal, each.case, measure.rounds)]
    if waiting and not stop():
        profiling = {**settings, "profile": True}
        _run_round(waiting, measure.rounds, journal, scratch, profiling, measure, progress, stop)
    if all(entry.case in journal.recorded for entry in planned):
        shutil.rmtree(scratch, ignore_errors=True)


def _impossible(entry: Planned) -> Launch | None:
    """The launch that stands for a case which need not be tried."""
    if entry.reason is not None:
        return Launch("unsupported", entry.reason)
    absent = lowerings.missing(entry.case.lowering)
    return Launch("unavailable", absent) if absent else None


def _is_due(journal: Journal, case: Case, round: int) -> bool:
    return case not in journal.recorded and len(journal.launches.get(case, [])) <= round


def _wants_layers(journal: Journal, case: Case, rounds: int) -> bool:
    """Whether all that is left of a case is the launch that times its layers."""
    done = journal.launches.get(case, [])
    return case not in journal.recorded and journal.wants_layers(case) and len(done) == rounds


def _run_round(
    waiting: list[Planned],
    round: int,
    journal: Journal,
    scratch: Path,
    settings: dict[str, Any],
    measure: Measure,
    progress: Progress,
    stop: Callable[[], bool],
) -> None:
    server: Server | None = None
    try:
        for entry in waiting:
            if stop():
                return
            progress.begin(entry.case, round)
            try:
                server = server or Server(scratch, preload(waiting), settings["threads"], measure.allocator)
                launch = _steady_launch(entry, server, scratch, settings, measure.timeout)
            except ServerDied as error:
                if server is not None:
                    server.close()
                server = None
                launch = Launch("crashed", str(error))
            if launch.status == "crashed":
                _refuse_full_disk(scratch)
            launch = replace(launch, round=round)
            journal.add(entry.case, launch, measure.rounds)
            progress.end(entry.case, launch)
    finally:
        if server is not None:
            server.close()


def _refuse_full_disk(scratch: Path) -> None:
    """A worker that had no room to write in is no finding about its case: stop, with what is finished intact."""
    if shutil.disk_usage(scratch).free < LEAST_FREE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(scratch))


def _steady_launch(entry: Planned, server: Server, scratch: Path, settings: dict[str, Any], timeout_s: float) -> Launch:
    """A launch that had its CPU to itself: repeated while it had not, flagged when that does not help."""
    launch, most = Launch("unstable"), settings["max_lost_cpu"]
    for attempt in range(1, cpu_contention.TRIES + 1):
        launch = launch_case(entry, server, scratch, settings, timeout_s)
        launch = replace(launch, environment={**launch.environment, "tries": attempt})
        lost = launch.environment.get("lost_cpu_share")
        if launch.status not in ("ok", "unstable") or entry.case.device != "cpu" or (lost or 0.0) <= most:
            return launch
    return replace(
        launch,
        status="unstable",
        reason=f"lost {lost:.0%} of its CPU time to others in the last of {cpu_contention.TRIES} tries, "
        f"expected at most {most:.0%}: end what else runs here, or allow more with --max-lost-cpu",
    )


def launch_case(entry: Planned, server: Server, scratch: Path, settings: dict[str, Any], timeout_s: float) -> Launch:
    """One launch of a case, its reference and counts made first where no earlier case needed the same."""
    bound = settings["max_memory"]
    request = {"source": source_request(entry.source), "case": entry.case.to_json()}
    # The reference is computed in twice the width.
    first = {**request, "max_memory": bound and 2 * bound}
    shared = digest({**entry.case.to_json(), "lowering": None, "device": None, "layout": None, "mode": None})
    reference = scratch / "references" / f"{shared}.pt"
    reference.parent.mkdir(parents=True, exist_ok=True)
    (scratch / "cache").mkdir(exist_ok=True)
    start = time.perf_counter()
    counts = _counts(server, scratch / "references" / f"{shared}.json", first, timeout_s)
    if reason := _too_large(entry.case, counts, settings):
        return Launch("oom", reason, counts=_named(counts))
    if not reference.exists():
        prepared = server.run("prepare", timeout_s, reference=str(reference), **first).values
        if prepared["status"] != "ok":
            return Launch(prepared["status"], prepared["reason"], counts=_named(counts))
    prepare_s = time.perf_counter() - start
    more = {"reference": str(reference), "measure": settings, "max_memory": bound}
    outcome = server.run("launch", timeout_s, **request, **more)
    values = {name: value for name, value in outcome.values.items() if name != "job_s"}
    launch = replace(Launch.from_json(values), counts=_named(counts))
    if launch.memory is not None:
        predicted = counts.get("predicted_peak_bytes")
        launch = replace(launch, memory={**launch.memory, "predicted_peak_bytes": predicted})
    job_s = outcome.values.get("job_s")
    overhead = {
        "prepare_s": prepare_s,
        "wall_s": outcome.wall_s,
        "start_s": None if job_s is None else outcome.wall_s - job_s,
    }
    return replace(launch, environment={**launch.environment, **overhead})


def _named(counts: dict[str, Any]) -> dict[str, Any] | None:
    """The counts a launch keeps; None where counting failed."""
    return {name: counts.get(name) for name in COUNTS} if counts["status"] == "ok" else None


def _too_large(case: Case, counts: dict[str, Any], settings: dict[str, Any]) -> str | None:
    """Why a case will not fit, from its predicted peak; None when it will or nobody can tell."""
    if counts["status"] != "ok" or case.device != "cpu":
        return None
    # Of a file, only weights and inputs are known ahead.
    predicted = counts["weights_bytes"] + counts["input_bytes"] + (counts["predicted_peak_bytes"] or 0)
    bound = settings["max_memory"] or total_memory_bytes()
    if predicted <= bound:
        return None
    said = "--max-memory" if settings["max_memory"] else "this machine's memory"
    return f"not started: predicted to need {predicted:,} bytes, more than {said}, {bound:,} bytes"


def _counts(server: Server, path: Path, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """What the job `count` returned for a model and input, asked once; its failure costs the case nothing else."""
    if path.exists():
        stored: dict[str, Any] = json.loads(path.read_text())
        return stored
    values = server.run("count", timeout_s, **request).values
    if values["status"] == "ok":
        write_result(path, values)
    return values
