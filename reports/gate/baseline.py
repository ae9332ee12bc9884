"""Baselines: what stored runs expect of a run, from a run, a history, or a text file to commit."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from mixprof.data.case import Case
from mixprof.data.errors import NotTrusted, UsageError
from mixprof.data.json import digest
from mixprof.data.pairs import Timed
from mixprof.reports.gate.comparable import compare
from mixprof.reports.gate.history import Level, level
from mixprof.reports.gate.stored import COMPARES, EXACT, Kept, Stored, timed_of
from mixprof.reports.gate.verdicts import THRESHOLD

SCHEMA = 1
TITLE = "# Written by `mixprof baseline`, read by `mixprof check RUN --against`. Each line ends in its own checksum."
NONE = "-"
WHOLE = ("batch", "window", "channels")
IN_WORDS = ("model", "lowering", "device", "dtype", "layout", "mode", "step")


@dataclass(frozen=True)
class Baseline:
    """What a run is compared with."""

    name: str
    newest: Stored  # its cases are those that are expected, its exact metrics those that gate
    levels: Mapping[Timed, Level]
    notes: Sequence[str] = ()


def of_runs(name: str, runs: Sequence[Stored], notes: Sequence[str] = ()) -> Baseline:
    """The baseline of comparable runs, oldest first."""
    levels: dict[Timed, Level] = {}
    steps: dict[str, list[float]] = {}  # by the date of the first run after a change
    for case in runs[-1].cases:
        series = [(run.created, run.cases[case].log_ratio, run.cases[case]) for run in runs if case in run.cases]
        known = [(created, ratio, kept) for created, ratio, kept in series if ratio is not None]
        if len(known) == 1:
            levels[case] = Level(known[0][1], known[0][2].spread or 0.0, 1)
        elif known:
            case_level = levels[case] = level([ratio for _, ratio, _ in known], [kept.error for *_, kept in known])
            if case_level.step is not None:
                steps.setdefault(known[case_level.began][0], []).append(case_level.step)
    return Baseline(name, _expected(runs), levels, [*notes, *_in_words(steps)])


def _expected(runs: Sequence[Stored]) -> Stored:
    """The newest run, with what its cases were when they last ran: one that broke is not given up by being stored."""

    def last(case: Timed, newest: Kept) -> Kept:
        kept = (run.cases[case] for run in reversed(runs) if case in run.cases)
        return next((each for each in kept if each.status in COMPARES), newest)

    return replace(runs[-1], cases={case: last(case, kept) for case, kept in runs[-1].cases.items()})


def _in_words(steps: Mapping[str, Sequence[float]]) -> list[str]:
    return [
        f"{len(each)} case{'s' * (len(each) > 1)} changed with the run of {created}, by "
        f"{math.expm1(statistics.median(each)):+.1%} in the median: compared with the runs from then on"
        for created, each in sorted(steps.items())
    ]


def of_many(name: str, runs: Sequence[Stored]) -> Baseline:
    """The same of runs that were named. NotTrusted when they do not compare with one another."""
    ordered = sorted(runs, key=lambda run: run.time)
    for run in ordered[:-1]:
        if different := compare(run, ordered[-1]).different:
            raise NotTrusted(f"the runs of {run.created} and {ordered[-1].created} differ: {'; '.join(different)}")
    return of_runs(name, ordered)


def as_text(baseline: Baseline) -> str:
    """A line a fact of the environment and a line a case, sorted: the same baseline is always the same text."""
    newest = baseline.newest
    facts = [("schema", SCHEMA), ("created", newest.created), ("testbed", newest.key)]
    facts += [(f"testbed.{name}", value) for name, value in sorted(newest.testbed.items())]
    facts += [(f"version.{name}", value) for name, value in sorted(newest.versions.items())]
    lines = [f"{name} {json.dumps(value)}" for name, value in facts]
    cases = sorted(
        _line(kept, baseline.levels.get(case)) for case, kept in newest.cases.items() if kept.status in COMPARES
    )
    return "\n".join([TITLE, *map(_sealed, [*lines, *cases, f"end {len(cases)} cases"])]) + "\n"


def _line(kept: Kept, level: Level | None) -> str:
    case, time = kept.timed
    height, width = case.resolution
    fields: dict[str, Any] = {**case.to_json(), "resolution": f"{height}x{width}", "status": kept.status}
    fields |= {"time": time} if time else {}
    fields |= {name: kept.exact.get(name) for name in EXACT}
    fields |= {"log_ratio": level and f"{level.center:.5f}", "spread": level and f"{level.spread:.5f}"}
    fields |= {"launches": kept.launches, "runs": level.runs if level else 0}
    return "case " + " ".join(f"{name}={_written(value)}" for name, value in fields.items())


def _written(value: Any) -> str:
    return NONE if value is None else quote(str(value), safe="/:=.,_+")


def _sealed(line: str) -> str:
    return f"{line}  #{digest(line)[:6]}"


def read(path: Path) -> Baseline:
    """A text baseline. UsageError, with file and line, for what `mixprof baseline` did not write."""
    facts: dict[str, Any] = {}
    cases: dict[Timed, tuple[Kept, Level | None]] = {}
    lines = _lines(path)
    for number, line in enumerate([*lines, ""] if not lines or not lines[-1].startswith("end ") else lines, 1):
        try:
            if number == 1 and not line.startswith(TITLE.split(",")[0]):
                raise ValueError("a file with another first line")
            if number > 1:
                _take(_opened(line, number), facts, cases)
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{path}:{number}: got {error}, expected what `mixprof baseline` writes: remove it, write it again"
            ) from None
    return _assembled(path, facts, cases)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"got '{path}', which cannot be read ({error}), expected a baseline") from error


def _opened(line: str, number: int) -> str:
    """A line without its checksum. ValueError for one that was changed, and for another schema."""
    text = line.rpartition("  #")[0]
    if not line:
        raise ValueError("no line 'end', or an empty line")
    if not text or line != _sealed(text):
        raise ValueError("a line that is torn or was edited")
    if number == 2 and text != f"schema {SCHEMA}":
        raise ValueError(f"{text}, expected {SCHEMA}")
    return text


def _take(line: str, facts: dict[str, Any], cases: dict[Timed, tuple[Kept, Level | None]]) -> None:
    """Add a line to what was read. ValueError when it cannot be there."""
    name, _, rest = line.partition(" ")
    if "end" in facts:
        raise ValueError("a line after the end")
    if name == "case":
        kept, case_level = _case(rest)
        if kept.timed in cases:
            raise ValueError("this case a second time")
        cases[kept.timed] = kept, case_level
    elif name in facts:
        raise ValueError(f"{name} a second time")
    else:
        facts[name] = json.loads(rest.removesuffix(" cases"))
    if "end" in facts and facts["end"] != len(cases):
        raise ValueError(f"{len(cases)} cases, {facts['end']} in its last line: lines were lost or added")


def _case(text: str) -> tuple[Kept, Level | None]:
    fields: dict[str, Any] = dict(part.split("=", 1) for part in text.split(" "))
    read: dict[str, Any] = {name: None if value == NONE else unquote(value) for name, value in fields.items()}
    height, width = read["resolution"].split("x")
    whole = {name: None if read[name] is None else int(read[name]) for name in WHOLE}
    named = {name: read[name] for name in IN_WORDS if name in read}
    case = Case.from_json({**named, **whole, "resolution": (int(height), int(width))})
    exact = {name: int(read[name]) for name in EXACT if read[name] is not None}
    ratio, spread = (None if read[name] is None else float(read[name]) for name in ("log_ratio", "spread"))
    runs = int(read["runs"])
    kept = Kept(
        timed_of(case, read.get("time") or ""),
        read["status"],
        None,
        exact,
        ratio,
        spread if runs == 1 else None,
        int(read["launches"]),
    )
    return kept, None if ratio is None or spread is None else Level(ratio, spread, runs)


def _assembled(path: Path, facts: Mapping[str, Any], cases: Mapping[Timed, tuple[Kept, Level | None]]) -> Baseline:
    parts: dict[str, dict[str, Any]] = {"testbed": {}, "version": {}}
    for name, value in facts.items():
        part, dot, rest = name.partition(".")
        if dot and part in parts:
            parts[part][rest] = value
    kept = {case: each for case, (each, _) in cases.items()}
    newest = Stored(str(facts.get("created")), parts["testbed"], parts["version"], {}, kept)
    if newest.key != facts.get("testbed"):
        raise UsageError(
            f"{path}: got other testbed lines than its key {facts.get('testbed')} stands for: remove it, write it again"
        )
    return Baseline(str(path), newest, {case: case_level for case, (_, case_level) in cases.items() if case_level})


def renewed(old: Baseline, new: Baseline) -> tuple[Baseline, int]:
    """A new baseline with the old times where these did not change beyond noise, and how many of its cases changed.

    So a diff shows what changed, and a slow creep is not taken over bit by bit.
    """
    if compare(old.newest, new.newest).different:
        return new, len(new.newest.cases)
    levels, changed = {}, 0
    for case, case_level in new.levels.items():
        before = old.levels.get(case)
        kept = old.newest.cases.get(case)
        levels[case] = before if before is not None and _is_same(before, case_level) else case_level
        changed += levels[case] is case_level or kept is None or kept.exact != new.newest.cases[case].exact
    return replace(new, levels=levels), changed


def _is_same(old: Level, new: Level) -> bool:
    """No more runs than before, and no shift beyond the threshold and the launches' own spread."""
    noise = max(THRESHOLD, 2 * max(old.spread, new.spread))
    return new.runs <= old.runs and abs(new.center - old.center) <= noise
