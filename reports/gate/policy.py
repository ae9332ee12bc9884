"""A policy applied to what was measured: absolute limits, then waivers. The exit code follows from what comes out."""

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import replace

from mixprof.data.errors import UsageError
from mixprof.reports.gate import limits, waivers
from mixprof.reports.gate.outcome import Judged, Outcome, Policy
from mixprof.reports.gate.thresholds import refuse_unused


def refuse_unused_patterns(policy: Policy, names: Sequence[str]) -> None:
    """UsageError for a threshold or limit whose pattern fits none of these cases."""
    if not names:
        raise UsageError("got no case, expected at least one")
    refuse_unused("--threshold", (pattern for pattern, _ in policy.thresholds.patterns), names)
    refuse_unused("--limit", (limit.pattern for limit in policy.limits), names)


def waived(policy: Policy, today: datetime.date) -> dict[str, str]:
    """The names that a waiver lets pass today, each with its reason."""
    return {waiver.case: waiver.reason for waiver in policy.waivers if waiver.counts(today)}


def apply(outcome: Outcome, policy: Policy, today: datetime.date) -> Outcome:
    """Apply a policy to an outcome. Nothing that was measured is changed, a verdict at most for the worse."""
    passing = waived(policy, today)
    cases = [_waive(_limited(judged, policy.limits), passing) for judged in outcome.cases]
    families = [_waive(judged, passing) for judged in outcome.families]
    grid = _waive(outcome.grid, passing) if outcome.grid else None
    applied = replace(outcome, cases=cases, families=families, grid=grid)
    verdicts = {judged.name: judged.verdict for judged in applied.judged}
    return replace(applied, notes=[*outcome.notes, *waivers.notes(policy.waivers, verdicts, today)])


def _limited(judged: Judged, of_all: Iterable[limits.Limit]) -> Judged:
    """Over a limit is regressed; where that is not known, a case is at best inconclusive."""
    if judged.time is not None or judged.verdict in ("missing", "incomparable"):
        return judged
    for limit in of_all:
        if not limit.fits(judged.name):
            continue
        answer, words = limits.judge(limit, judged.times)
        if answer != limits.WITHIN:
            at_best = "inconclusive" if judged.verdict in ("same", "improved") else judged.verdict
            verdict = "regressed" if answer == limits.EXCEEDED else at_best
            judged = replace(judged, verdict=verdict, reason="; ".join(filter(None, [judged.reason, words])))
    return judged


def _waive(judged: Judged, passing: dict[str, str]) -> Judged:
    """A waiver accepts a slow-down or a loss, and so also not knowing of one. It makes nothing comparable."""
    lets_pass = judged.verdict in ("regressed", "missing", "inconclusive") and judged.name in passing
    return replace(judged, waived=passing[judged.name]) if lets_pass else judged
