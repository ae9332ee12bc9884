"""Runs of one sweep put together, a run folder for each testbed: in any order, in any steps, with the same bytes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from mixprof.data import files, run_folder
from mixprof.data.case import Case
from mixprof.data.errors import UsageError
from mixprof.data.fleet import expanded, mark, testbed_name
from mixprof.data.json import line
from mixprof.data.launch import Launch
from mixprof.data.manifest import CrossCheck
from mixprof.data.record import SCHEMA, Record, assemble, with_layers
from mixprof.plan.shards import missing
from mixprof.run.merging.checks import refuse_unlike
from mixprof.run.merging.parts import Part, read, together


def merge(folders: Iterable[str | Path], out: Path) -> list[str]:
    """Write what these runs are together into a new folder: a run, or a fleet of them. What is amiss, a line each.

    Raises UsageError, before anything is written, for what does not go together.
    """
    if out.exists():
        raise UsageError(f"got --out '{out}', which exists, expected a new folder")
    runs = {str(path): read(path) for path in expanded(folders)}
    refuse_unlike({name: run.manifest for name, run in runs.items()})
    groups: dict[str, dict[str, Part]] = {}
    for name, run in runs.items():
        groups.setdefault(testbed_name(run.manifest), {})[name] = run
    merged = {testbed: together(group) for testbed, group in sorted(groups.items())}
    begun = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    begun.mkdir(parents=True)
    try:
        if len(merged) > 1:
            mark(begun)
        for testbed, run in merged.items():
            _write(begun if len(merged) == 1 else begun / testbed, run)
        begun.rename(out)
    finally:
        shutil.rmtree(begun, ignore_errors=True)
    return [f"{testbed}: {message}" for testbed, run in merged.items() for message in _amiss(run)]


def _write(folder: Path, run: Part) -> None:
    folder.mkdir(exist_ok=True)
    cases = sorted({*run.launches, *run.records}, key=_order)
    launches = {case: _launches(run, case) for case in cases}
    journal = [
        {"schema": SCHEMA, "case": case.to_json(), "launch": one.to_json()} for case in cases for one in launches[case]
    ]
    rounds = int(run.manifest.measure.get("launches") or 1)
    records = [_record(case, run, launches[case], rounds).to_json() for case in cases if case in run.records]
    files.write_whole(folder / run_folder.JOURNAL, b"".join(map(line, journal)))
    files.write_whole(folder / run_folder.RECORDS, b"".join(map(line, records)))
    if run.peaks:
        run_folder.write_peaks(folder, run.peaks)
    if run.checked:
        run_folder.write_crosscheck(folder, CrossCheck(tuple(run.checked)))
    run_folder.write_manifest(folder, run.manifest)


def _order(case: Case) -> tuple[object, ...]:
    sizes = (case.batch, case.resolution, case.window or 0, case.channels or 0)
    return (
        not case.is_anchor,
        case.model,
        case.lowering,
        case.device,
        case.dtype,
        case.layout,
        case.mode,
        case.step,
        sizes,
    )


def _launches(run: Part, case: Case) -> list[Launch]:
    """A case's launches by round, each round's by their content."""
    return [one for _, one in sorted(run.launches.get(case, {}).items(), key=lambda each: (each[1].round, each[0]))]


def _record(case: Case, run: Part, launches: list[Launch], rounds: int) -> Record:
    """The case's one record, or all launches put together where runs have different ones."""
    if len(run.records[case]) == 1:
        return next(iter(run.records[case].values()))
    timed, profiled = ([one for one in launches if (one.round >= rounds) == after] for after in (False, True))
    return with_layers(assemble(case, timed or launches), profiled)


def _amiss(run: Part) -> Iterator[str]:
    """What is missing of a sweep, and what several runs disagree on."""
    sweep = run.manifest.sweep
    if absent := missing(sweep.shards or ()):
        yield f"shard {', '.join(absent)} is missing: merge it, too, or run it with --shard"
        if begun := [case for case in run.launches if case not in run.records]:
            label = min(begun, key=_order).label()
            yield f"{len(begun)} with launches and no record, as {label}: go on with their shards with --resume"
    elif left := (sweep.cases or 0) - len(run.records):
        yield f"{left} of {sweep.cases} cases have no record: go on with their shards with --resume, and merge anew"
    several = [
        case for case, launches in run.launches.items()
        if not case.is_anchor and len({one.round for one in launches.values()}) < len(launches)
    ]  # fmt: skip
    if several:
        label = min(several, key=_order).label()
        yield f"conflict: {len(several)} cases were timed by several runs, as {label}: their launches stand together"
