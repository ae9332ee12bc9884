"""The verdicts of a run against a baseline, as an Outcome of kind "check"."""

import math
import shlex
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from mixprof.data.case import Case, anchor_of
from mixprof.data.errors import UsageError
from mixprof.reports.gate import history
from mixprof.reports.gate.baseline import Baseline
from mixprof.reports.gate.comparable import compare
from mixprof.reports.gate.history import LEAST_RUNS, Level
from mixprof.reports.gate.outcome import Judged, Outcome, exact_words
from mixprof.reports.gate.stored import HOST_MODE, MACHINE_FAULTS, Kept, Stored
from mixprof.reports.gate.thresholds import Thresholds
from mixprof.reports.gate.verdicts import Verdict

DEFAULT_THRESHOLDS = Thresholds()
COMPARES = ("ok", "built")  # statuses that a comparison starts from
AXES = {name: f"{name}s" for name in ("model", "lowering", "device", "dtype", "layout", "mode")}  # field -> option
AXES |= {"batch": "batches", "resolution": "resolutions", "window": "windows", "channels": "channels"}


def check(
    name: str, head: Stored, base: Baseline, under_test: Collection[str] = (),
    thresholds: Thresholds = DEFAULT_THRESHOLDS, exact_only: bool = False,
) -> Outcome:  # fmt: skip
    """Every case of the newest stored run, judged. UsageError when run and baseline share no case."""
    expected = {case: kept for case, kept in base.newest.cases.items() if kept.status in COMPARES}
    if not set(expected) & set(head.cases):
        raise UsageError(
            f"got '{name}' with cases of {_models(head.cases)}, expected some of the cases of '{base.name}', "
            f"which are of {_models(expected)}"
        )
    compared = compare(base.newest, head, under_test)
    notes = [*base.notes, *compared.notes, *_new(head, base.newest)]
    if compared.different:
        reason = f"not declared under test: {'; '.join(compared.different)}"
        cases = [_judged(case, "incomparable", reason, kept, head.cases.get(case)) for case, kept in expected.items()]
        return Outcome("check", base.name, name, cases, notes=notes)
    timed = {} if exact_only else {case: each for case, each in base.levels.items() if _ratio(head, case) is not None}
    present = {case: (head.cases[case].log_ratio or 0.0, head.cases[case].error) for case in timed}
    verdicts = history.judge(timed, present, {case: thresholds.of(case.label()) for case in timed})
    cases = [_of_case(kept, head.cases.get(case), base, verdicts, exact_only) for case, kept in expected.items()]
    judged = [timed[case] for case in verdicts]
    detectable = statistics.median(map(history.detectable, judged)) if judged else None
    return Outcome("check", base.name, name, cases, detectable=detectable, notes=[*notes, *_confirm(cases, under_test)])


def _ratio(run: Stored, case: Case) -> float | None:
    return run.cases[case].log_ratio if case in run.cases else None


def _of_case(
    kept: Kept, now: Kept | None, base: Baseline, verdicts: Mapping[Case, Verdict], exact_only: bool
) -> Judged:
    """One case. More of an exact metric is a regression whatever the time; less of it leaves the time to decide."""
    case = kept.case
    if now is None:
        return _judged(case, "missing", "the run has no such case", kept, now)
    exact = differing(kept, now)
    worse = [each for each, (before, after) in exact.items() if after > before]
    if now.status not in (*COMPARES, *MACHINE_FAULTS) or (kept.status, now.status) == COMPARES:
        return _judged(case, "missing", f"{now.status}: {now.reason}", kept, now)
    if worse or exact_only:
        verdict = "regressed" if worse else "improved" if exact else "same"
        return _judged(case, verdict, exact_words(exact) or None, kept, now)
    if now.status in MACHINE_FAULTS:
        return _judged(case, "inconclusive", f"{now.status}: {now.reason}", kept, now)
    if case in verdicts:
        return _timed(kept, now, base.levels[case], verdicts[case])
    return _untimed(kept, now, base)


def _timed(kept: Kept, now: Kept, level: Level, verdict: Verdict) -> Judged:
    z = history.z_score(now.log_ratio or 0.0, level, now.error)
    exact = differing(kept, now)
    reasons = [exact_words(exact)]
    if verdict.verdict == "regressed" and history.creeps(level, z):
        cusum = history.accumulate(level.cusum, z)
        reasons.append(f"a creep over the last runs: CUSUM {cusum:.1f}, alarm at {history.ALARM:g}")
    if verdict.open:
        reasons.append("stored runs vary too much to tell: `mixprof ab` compares within one job")
    more: dict[str, Any] = {"exact": exact, "case": kept.case, "reason": "; ".join(filter(None, reasons)) or None}
    return Judged.of(kept.case.label(), verdict, confirmed=verdict.verdict != "regressed", **more)


def _untimed(kept: Kept, now: Kept, base: Baseline) -> Judged:
    """A case that has no verdict on its time."""
    level = base.levels.get(kept.case)
    if kept.status == "built":
        return _judged(kept.case, "inconclusive", "built only: no device here to time it on", kept, now)
    if now.log_ratio is None or level is None:
        where = "the run" if now.log_ratio is None else "the baseline"
        anchor = f"{anchor_of(kept.case.device)} {kept.case.lowering} {kept.case.device} {kept.case.dtype}"
        return _judged(kept.case, "incomparable", f"{where} has no time of {anchor} to relate to", kept, now)
    runs = f"{level.runs} of the {LEAST_RUNS} stored runs that a verdict on time takes"
    change, exact = math.expm1(now.log_ratio - level.center), differing(kept, now)
    reason = "; ".join(filter(None, [exact_words(exact), runs]))
    more: dict[str, Any] = {"change": change, "rounds": level.runs, "reason": reason, "exact": exact}
    return Judged.of_case(kept.case, "inconclusive", **more)


def differing(before: Kept, now: Kept) -> dict[str, tuple[int, int]]:
    """The exact metrics that both have and that differ."""
    both = {name: (before.exact[name], now.exact[name]) for name in before.exact if name in now.exact}
    return {name: pair for name, pair in both.items() if pair[0] != pair[1]}


def _judged(case: Case, verdict: str, reason: str | None, kept: Kept, now: Kept | None) -> Judged:
    exact = differing(kept, now) if now else {}
    return Judged.of_case(case, verdict, reason=reason, exact=exact)


def _models(cases: Iterable[Case]) -> str:
    return ", ".join(sorted({case.model for case in cases})) or "none"


def _new(head: Stored, base: Stored) -> list[str]:
    compared = {case for case, kept in base.cases.items() if kept.status in COMPARES}
    new = [case.label() for case, kept in head.cases.items() if kept.status == "ok" and case not in compared]
    return [f"new, compared with nothing: {'; '.join(new)}"] if new else []


def _confirm(cases: Sequence[Judged], under_test: Collection[str]) -> list[str]:
    """The `ab` command that measures the alarms again, both sides in one job."""
    alarms = [judged.case for judged in cases if not judged.confirmed and judged.case is not None]
    if not alarms:
        return []
    sides = "python:BEFORE python:AFTER" if under_test else "merge-base HEAD"
    return [f"to confirm: mixprof ab {sides} {axes_of(alarms)}"]


def axes_of(cases: Sequence[Case]) -> str:
    """The options of a product of axes that holds these cases."""
    words = []
    for name, option in AXES.items():
        values = [value for case in cases if (value := getattr(case, name)) is not None]
        texts = [
            "x".join(map(str, value)) if isinstance(value, tuple) else str(value).removesuffix(HOST_MODE)
            for value in values
        ]
        if texts:
            words += [f"--{option}", shlex.quote(",".join(dict.fromkeys(texts)))]
    return " ".join(words)
