"""A policy applied to what was measured: absolute limits, then waivers. The exit code follows from what comes out."""

from __future__ import annotations

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
    return {each.case: each.reason for each in policy.waivers if each.counts(today)}


def apply(outcome: Outcome, policy: Policy, today: datetime.date) -> Outcome:
    """Apply a policy to an outcome. Nothing that was measured is changed, a verdict at most for the worse."""
    passing = waived(policy, today)
    cases = [_waive(_limited(each, policy.limits), passing) for each in outcome.cases]
    families = [_waive(each, passing) for each in outcome.families]
    grid = _waive(outcome.grid, passing) if outcome.grid else None
    verdicts = {each.name: each.verdict for each in [*cases, *families, *([grid] if grid else [])]}
    notes = [*outcome.notes, *waivers.notes(policy.waivers, verdicts, today)]
    return replace(outcome, cases=cases, families=families, grid=grid, notes=notes)


def _limited(judged: Judged, of_all: Iterable[limits.Limit]) -> Judged:
    """Over a limit is regressed; where that is not known, a case is at best inconclusive."""
    if judged.time is not None or judged.verdict in ("missing", "incomparable"):
        return judged
    for limit in of_all:
        if not limit.fits(judged.name):
            continue
        found, words = limits.judge(limit, judged.times)
        if found != limits.WITHIN:
            reason = f"{judged.reason}; {words}" if judged.reason else words
            judged = replace(judged, verdict=_worse(judged.verdict, found), reason=reason)
    return judged


def _worse(verdict: str, found: str) -> str:
    if found == limits.EXCEEDED:
        return "regressed"
    return "inconclusive" if verdict in ("same", "improved") else verdict


def _waive(judged: Judged, passing: dict[str, str]) -> Judged:
    """A waiver accepts a slow-down or a loss, and so also not knowing of one. It makes nothing comparable."""
    lets_pass = judged.verdict in ("regressed", "missing", "inconclusive") and judged.name in passing
    return replace(judged, waived=passing[judged.name]) if lets_pass else judged
