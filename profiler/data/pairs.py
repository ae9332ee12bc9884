"""What a job of two sides measured: paired differences by case, and why a case has none. Never a statistic."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mixprof.data.case import Case

HOST = "host"  # the time to enqueue a forward, of a GPU's case: judged beside the device's
Difference = tuple[Any, Any]  # (base, head) of a metric that needs no time


@dataclass(frozen=True)
class Failure:
    """Why a side cannot do a case."""

    side: str  # "base" or "head"
    status: str
    reason: str


class Timed(NamedTuple):
    """One of a case's times: what is judged."""

    case: Case
    time: str = ""  # that of its latency; or HOST

    def label(self) -> str:
        """The case's, and which time it is where that is not the latency."""
        return f"{self.case.label()} {self.time}".strip()


@dataclass
class Paired:
    """One case on both sides, as far as a job has measured it."""

    case: Case  # as the axes give it, before a side's own settings: what everything is keyed by
    base: Case
    head: Case
    exact: Mapping[str, Difference] = field(default_factory=dict)  # metrics in which the sides differ
    uncounted: Failure | None = None  # the side whose metrics could not be counted
    new_uncounted: Sequence[str] = ()  # operators of HEAD alone that no count knows: its MACs are a lower bound
    failure: Failure | None = None
    differences: list[float] = field(default_factory=list)  # log HEAD over BASE, one a round
    host_differences: list[float] = field(default_factory=list)  # of the time to enqueue; none on a CPU
    host_bound: bool = False  # HEAD's forward takes as long to enqueue as to run, or the queue does not hold it
    disturbed: int = 0  # rounds given up
    head_ms: list[list[float]] = field(default_factory=list)  # HEAD's samples in each round that counts
    head_repeats: int = 1  # most forwards in one of these
    proofs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # side -> proof of its lowering

    @property
    def timed(self) -> dict[Timed, list[float]]:
        """Differences by the time that they are of."""
        host = {Timed(self.case, HOST): self.host_differences} if self.host_differences else {}
        return {Timed(self.case): self.differences, **host}


@dataclass(frozen=True)
class Missing:
    """A case of BASE that HEAD has not."""

    case: Case
    reason: str


@dataclass(frozen=True)
class Measured:
    """A whole job."""

    base: str
    head: str
    cases: Sequence[Paired]
    missing: Sequence[Missing] = ()
    canary: Sequence[float] = ()  # BASE against itself
    notes: Sequence[str] = ()
    testbed_key: str | None = None
    timed: bool = True  # False: counts alone
    rounds_s: float = 0.0  # seconds in rounds
    spent_s: float = 0.0  # seconds in all
