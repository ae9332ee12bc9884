"""The outcome of a gate job: verdicts of cases, families, grid and canary, and the exit code that they come to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mixprof.data.case import Case
from mixprof.data.json import to_builtins
from mixprof.data.pairs import Difference
from mixprof.reports.gate.limits import Limit
from mixprof.reports.gate.thresholds import Thresholds
from mixprof.reports.gate.times import Time
from mixprof.reports.gate.verdicts import LOOKS, Verdict
from mixprof.reports.gate.waivers import Waiver

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
    exact: Mapping[str, Difference] = field(default_factory=dict)  # metric -> (base, head), where they differ
    more_rounds: int | None = None  # that would decide an inconclusive one
    more_s: float | None = None
    waived: str | None = None  # the reason of the waiver that lets it pass
    times: Mapping[str, Time] = field(default_factory=dict)  # of HEAD: metric -> milliseconds, or why there are none
    confirmed: bool = True  # False: an alarm against stored runs, which `ab` would confirm
    case: Case | None = None  # of BASE
    time: str | None = None  # "host": the time to enqueue a forward of a GPU's case; None: its latency
    host_bound: bool = False  # HEAD's forwards wait for the host, so that the latency is not what one meets

    @classmethod
    def of(cls, name: str, verdict: Verdict, **details: Any) -> "Judged":
        return cls(name, verdict.verdict, verdict.change, verdict.low, verdict.high, verdict.rounds, **details)

    @classmethod
    def of_case(cls, case: Case, verdict: str, *, base: Case | None = None, **details: Any) -> "Judged":
        """A case without a verdict on its time. base: as BASE ran it, where that differs."""
        return cls(case.label(), verdict, case=base or case, **details)


@dataclass(frozen=True)
class Outcome:
    """A job's verdicts."""

    kind: str  # "ab", "check" or "exact"
    base: str
    head: str
    cases: Sequence[Judged]
    families: Sequence[Judged] = ()
    grid: Judged | None = None
    canary: Judged | None = None
    spent_s: float = 0.0
    detectable: float | None = None  # smallest slow-down found with 80 % power, of cases with rounds for one look
    notes: Sequence[str] = ()
    testbed_key: str | None = None  # of the machine that timed it
    canary_differences: Sequence[float] = ()  # log HEAD over BASE, a round each: what `calibrate --from` pools

    @property
    def judged(self) -> list[Judged]:
        """Cases, families and the grid: what an exit code comes from."""
        return [*self.cases, *self.families, *([self.grid] if self.grid else [])]

    @property
    def flagged(self) -> bool:
        """Whether the baseline differs from itself."""
        return self.canary is not None and self.canary.verdict in ("regressed", "improved")

    @property
    def trusted(self) -> Sequence[Judged]:
        """The cases, each inconclusive where the baseline differs from itself."""
        if not self.flagged:
            return self.cases
        reason = "the baseline differs from itself: not to be trusted"
        return [replace(judged, verdict="inconclusive", reason=reason) for judged in self.cases]

    def to_json(self) -> dict[str, Any]:
        """The outcome as JSON values: what `ab.json` and `--json` hold."""
        return {"schema": SCHEMA, **to_builtins(self)}


@dataclass(frozen=True)
class Policy:
    """What a team makes of changes, and of the verdicts that are neither good nor bad."""

    on_inconclusive: str = "fail"  # "fail": exit code 3; "pass": 0; "retry": more rounds, then as "fail"
    on_incomparable: str = "fail"  # "fail": exit code 4; "pass": 0; "retry": more rounds, then as "fail"
    thresholds: Thresholds = field(default_factory=Thresholds)
    limits: Sequence[Limit] = ()
    waivers: Sequence[Waiver] = ()

    def retries(self, verdict: str) -> bool:
        """Whether a case with this verdict is to have more rounds, while there is budget for them."""
        return {"inconclusive": self.on_inconclusive, "incomparable": self.on_incomparable}.get(verdict) == "retry"

    def passes(self, verdict: str) -> bool:
        """Whether a verdict that is neither good nor bad lets the job pass."""
        return {"inconclusive": self.on_inconclusive, "incomparable": self.on_incomparable}.get(verdict) == "pass"


def exit_code(outcome: Outcome, policy: Policy) -> int:
    """Canary flagged 4, regressed or missing 1, incomparable 4, inconclusive 3, else 0. Waived cases do not count."""
    verdicts = {judged.verdict for judged in outcome.judged if judged.waived is None}
    if outcome.flagged:
        return NOT_COMPARABLE
    if verdicts & set(FAILING):
        return REGRESSED
    if "incomparable" in verdicts and not policy.passes("incomparable"):
        return NOT_COMPARABLE
    of_cases = {judged.verdict for judged in outcome.cases if judged.waived is None}
    return INCONCLUSIVE if "inconclusive" in of_cases and not policy.passes("inconclusive") else 0


def in_words(outcome: Outcome, code: int) -> str:
    """The job in one sentence."""
    counts = [(verdict, sum(judged.verdict == verdict for judged in outcome.cases)) for verdict in
              ("regressed", "missing", "incomparable", "inconclusive", "improved", "same")]  # fmt: skip
    verdicts = ", ".join(f"{count} {name}" for name, count in counts if count) or "no case"
    waived = sum(judged.waived is not None for judged in outcome.cases)
    verdicts += f" ({waived} waived)" if waived else ""
    verdicts += f", in {outcome.spent_s:.0f} s" if outcome.kind == "ab" else ""
    could = "" if outcome.detectable is None else f"; a slow-down of {outcome.detectable:.1%} would have been found"
    if outcome.kind == "ab" and outcome.detectable is None and outcome.cases:
        could = f"; no case had the {LOOKS[0]} undisturbed rounds that finding a slow-down takes"
    flagged = code == NOT_COMPARABLE and outcome.flagged
    trusted = " The baseline differs from itself: nothing here is to be trusted." if flagged else ""
    return f"{outcome.head} against {outcome.base}: {verdicts}{could}.{trusted}"


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def exact_words(exact: Mapping[str, Difference]) -> str:
    """Counts that differ: "macs 1,000 -> 2,000 (+100.0%)"."""
    return "; ".join(
        f"{name} {base:,} -> {head:,}" + (f" ({head / base - 1:+.1%})" if base else "")
        for name, (base, head) in exact.items()
    )


def not_counted(operators: Sequence[str]) -> str:
    """Operators that BASE is not known to have, for which HEAD's MACs leave nothing; "" without."""
    return f"MACs leave out what is not counted: {', '.join(operators)}" if operators else ""
