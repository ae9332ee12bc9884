"""The verdicts of a run against a baseline, as an Outcome of kind "check"."""

import math
import shlex
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mixprof.data.case import STEP, Case, anchor_of
from mixprof.data.errors import UsageError
from mixprof.data.pairs import Timed
from mixprof.reports.gate import history
from mixprof.reports.gate.baseline import Baseline
from mixprof.reports.gate.comparable import compare
from mixprof.reports.gate.history import LEAST_RUNS, Level
from mixprof.reports.gate.outcome import Judged, Outcome, exact_words, not_counted
from mixprof.reports.gate.stored import COMPARES, COUNTED, MACHINE_FAULTS, Kept, Stored
from mixprof.reports.gate.thresholds import Thresholds
from mixprof.reports.gate.verdicts import Verdict

DEFAULT_THRESHOLDS = Thresholds()
AXES = {
    name: f"{name}s" for name in ("model", "lowering", "device", "dtype", "layout", "mode", "step")
}  # field -> option
AXES |= {"batch": "batches", "resolution": "resolutions", "window": "windows", "channels": "channels"}


def check(
    name: str, head: Stored, base: Baseline, under_test: Collection[str] = (),
    thresholds: Thresholds = DEFAULT_THRESHOLDS, exact_only: bool = False,
) -> Outcome:  # fmt: skip
    """Every case of the newest stored run, judged. UsageError when run and baseline share no case."""
    expected = {key: kept for key, kept in base.newest.cases.items() if kept.status in COMPARES}
    if not set(expected) & set(head.cases):
        raise UsageError(
            f"got '{name}' with cases of {_models(head.cases)}, expected some of the cases of '{base.name}', "
            f"which are of {_models(expected)}"
        )
    compared = compare(base.newest, head, under_test)
    notes = [*base.notes, *compared.notes, *_new(head, base.newest)]
    if compared.different:
        reason = f"not declared under test: {'; '.join(compared.different)}"
        cases = [_judged(key, "incomparable", reason, kept, head.cases.get(key)) for key, kept in expected.items()]
        return Outcome("check", base.name, name, cases, notes=notes)
    timed = {} if exact_only else {key: each for key, each in base.levels.items() if _ratio(head, key) is not None}
    verdicts = _verdicts(timed, head, thresholds)
    asked = {key: kept for key, kept in expected.items() if not key.time or (not exact_only and _speaks(head, key))}
    cases = [_of_case(kept, head.cases.get(key), base, verdicts, exact_only) for key, kept in asked.items()]
    least = [history.detectable(timed[key], thresholds.of(key.case.label())) for key in verdicts]
    detectable = statistics.median(least) if least else None
    return Outcome("check", base.name, name, cases, detectable=detectable, notes=[*notes, *_confirm(cases, under_test)])


def _ratio(run: Stored, key: Timed) -> float | None:
    return run.cases[key].log_ratio if key in run.cases else None


def _verdicts(timed: Mapping[Timed, Level], head: Stored, thresholds: Thresholds) -> dict[Timed, Verdict]:
    """The verdicts on latencies, and those on the host's times among themselves."""
    present = {key: (head.cases[key].log_ratio or 0.0, head.cases[key].error) for key in timed}
    shares = {key: thresholds.of(key.case.label()) for key in timed}
    judged: dict[Timed, Verdict] = {}
    for time in dict.fromkeys(key.time for key in timed):
        judged |= history.judge({key: each for key, each in timed.items() if key.time == time}, present, shares)
    return judged


def _speaks(head: Stored, key: Timed) -> bool:
    """Whether there is more to say of the host's time than what the latency's row says: that its case is not ok."""
    latency = head.cases.get(Timed(key.case))
    return key in head.cases or (latency is not None and latency.status == "ok")


def _of_case(
    kept: Kept, now: Kept | None, base: Baseline, verdicts: Mapping[Timed, Verdict], exact_only: bool
) -> Judged:
    """One case. More of an exact metric is a regression whatever the time; less of it leaves the time to decide."""
    key = kept.timed
    if now is None and key.time:
        return _judged(key, "incomparable", f"the run has no time of {_anchor(key)} to relate to", kept, now)
    if now is None:
        return _judged(key, "missing", "the run has no such case", kept, now)
    exact = differing(kept, now)
    worse = [each for each, (before, after) in exact.items() if after > before]
    if now.status not in (*COMPARES, *MACHINE_FAULTS) or (kept.status, now.status) == COMPARES:
        return _judged(key, "missing", f"{now.status}: {now.reason}", kept, now)
    if exact_only and not worse and (unknown := _unknown(kept, now)):
        return _judged(key, "inconclusive", unknown, kept, now)
    if worse or exact_only:
        verdict = "regressed" if worse else "improved" if exact else "same"
        return _judged(key, verdict, exact_words(exact) or None, kept, now)
    if now.status in MACHINE_FAULTS:
        return _judged(key, "inconclusive", f"{now.status}: {now.reason}", kept, now)
    if key in verdicts:
        return _timed(kept, now, base.levels[key], verdicts[key])
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
    more: dict[str, Any] = {"exact": exact, "case": kept.timed.case, "reason": "; ".join(filter(None, reasons)) or None}
    more["time"] = kept.timed.time or None
    return Judged.of(kept.timed.label(), verdict, confirmed=verdict.verdict != "regressed", **more)


def _untimed(kept: Kept, now: Kept, base: Baseline) -> Judged:
    """A case that has no verdict on its time."""
    key = kept.timed
    level = base.levels.get(key)
    if kept.status == "built":
        return _judged(key, "inconclusive", "built only: no device here to time it on", kept, now)
    if now.log_ratio is None or level is None:
        where = "the run" if now.log_ratio is None else "the baseline"
        return _judged(key, "incomparable", f"{where} has no time of {_anchor(key)} to relate to", kept, now)
    runs = f"{level.runs} of the {LEAST_RUNS} stored runs that a verdict on time takes"
    change, exact = math.expm1(now.log_ratio - level.center), differing(kept, now)
    reason = "; ".join(filter(None, [exact_words(exact), runs]))
    return replace(_judged(key, "inconclusive", reason, kept, now), change=change, rounds=level.runs)


def differing(before: Kept, now: Kept) -> dict[str, tuple[int, int]]:
    """The exact metrics that both have and that differ."""
    both = {name: (before.exact[name], now.exact[name]) for name in before.exact if name in now.exact}
    return {name: pair for name, pair in both.items() if pair[0] != pair[1]}


def _unknown(before: Kept, now: Kept) -> str | None:
    """Why counts alone cannot judge a case, if they cannot."""
    if lost := [name for name in COUNTED if name in before.exact and name not in now.exact]:
        return f"the run has no {' and no '.join(lost)} to compare: it could not be counted"
    if new := sorted(set(now.uncounted) - set(before.uncounted)) if differing(before, now) else []:
        return f"{exact_words(differing(before, now))}; {not_counted(new)}"
    return None if set(before.exact) & set(now.exact) else "no count of it is known on both sides"


def _judged(key: Timed, verdict: str, reason: str | None, kept: Kept, now: Kept | None) -> Judged:
    exact = differing(kept, now) if now else {}
    return Judged(key.label(), verdict, reason=reason, exact=exact, case=key.case, time=key.time or None)


def _anchor(key: Timed) -> str:
    case = key.case
    return f"{anchor_of(case.device)} {case.lowering} {case.device} {case.dtype}"


def _models(keys: Iterable[Timed]) -> str:
    return ", ".join(sorted({key.case.model for key in keys})) or "none"


def _new(head: Stored, base: Stored) -> list[str]:
    compared = {key for key, kept in base.cases.items() if kept.status in COMPARES}
    new = [key.label() for key, kept in head.cases.items() if kept.status == "ok" and key not in compared]
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
        texts = ["x".join(map(str, value)) if isinstance(value, tuple) else str(value) for value in values]
        if set(texts) - {STEP}:
            words += [f"--{option}", shlex.quote(",".join(dict.fromkeys(texts)))]
    return " ".join(words)
