"""The outcome of a gate job: verdicts of cases, families, grid and canary, and the exit code that they come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from reports.gate import Verdict

SCHEMA = 1
REGRESSED, BAD_INPUT, INCONCLUSIVE, NOT_COMPARABLE = 1, 2, 3, 4
FAILING = ("regressed", "missing")


@dataclass(frozen=True)
class Judged:
    """One case, family or grid with its verdict. What was not measured is None."""

    name: str
    verdict: str  # improved, same, regressed, inconclusive, missing, incomparable
    change: float | None = None  # relative: 0.05 is 5 % slower
    low: float | None = None
    high: float | None = None
    rounds: int = 0
    reason: str | None = None
    exact: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)  # metric -> (base, head), where they differ
    more_rounds: int | None = None  # that would decide an inconclusive one
    more_s: float | None = None
    waived: str | None = None  # the reason of the waiver that lets it pass
    confirmed: bool = True  # False: an alarm against stored runs, which `ab` would confirm
    case: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, name: str, verdict: Verdict, **more: Any) -> Judged:
        return cls(name, verdict.verdict, verdict.change, verdict.low, verdict.high, verdict.rounds, **more)


@dataclass(frozen=True)
class Outcome:
    """What a job found."""

    kind: str  # "ab", "check" or "exact"
    base: str
    head: str
    cases: Sequence[Judged]
    families: Sequence[Judged] = ()
    grid: Judged | None = None
    canary: Judged | None = None
    spent_s: float = 0.0
    detectable: float | None = None  # smallest slow-down that this job would have found, 80 % power
    notes: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **asdict(self)}


@dataclass(frozen=True)
class Policy:
    """What a team makes of the verdicts that are neither good nor bad."""

    on_inconclusive: str = "fail"  # "fail": exit code 3; "pass": 0
    on_incomparable: str = "fail"  # "fail": exit code 4; "pass": 0


def exit_code(outcome: Outcome, policy: Policy) -> int:
    """Canary flagged 4, regressed or missing 1, incomparable 4, inconclusive 3, else 0. Waived cases do not count."""
    judged = [*outcome.cases, *outcome.families, *([outcome.grid] if outcome.grid else [])]
    verdicts = {each.verdict for each in judged if each.waived is None}
    if outcome.canary is not None and outcome.canary.verdict in ("regressed", "improved"):
        return NOT_COMPARABLE
    if verdicts & set(FAILING):
        return REGRESSED
    if "incomparable" in verdicts and policy.on_incomparable == "fail":
        return NOT_COMPARABLE
    of_cases = {each.verdict for each in outcome.cases if each.waived is None}
    return INCONCLUSIVE if "inconclusive" in of_cases and policy.on_inconclusive == "fail" else 0


def in_words(outcome: Outcome, code: int) -> str:
    """The job in one sentence."""
    counts = [(each, sum(judged.verdict == each for judged in outcome.cases)) for each in
              ("regressed", "missing", "incomparable", "inconclusive", "improved", "same")]  # fmt: skip
    found = ", ".join(f"{count} {name}" for name, count in counts if count) or "no case"
    could = "" if outcome.detectable is None else f"; a slow-down of {outcome.detectable:.1%} would have been found"
    flagged = code == NOT_COMPARABLE and _flagged(outcome)
    trusted = " The baseline differs from itself: nothing here is to be trusted." if flagged else ""
    return f"{outcome.head} against {outcome.base}: {found}{could}.{trusted}"


def _flagged(outcome: Outcome) -> bool:
    return outcome.canary is not None and outcome.canary.verdict in ("regressed", "improved")
