"""What a job of two sides measured: paired differences by case, and why a case has none. Never a statistic."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mixprof.data.case import Case

Difference = tuple[Any, Any]  # (base, head) of a metric that needs no time


@dataclass(frozen=True)
class Failure:
    """Why a side cannot do a case."""

    side: str  # "base" or "head"
    status: str
    reason: str


@dataclass
class Paired:
    """One case on both sides, as far as a job has measured it."""

    case: Case  # as the axes give it, before a side's own settings: what everything is keyed by
    base: Case
    head: Case
    exact: Mapping[str, Difference] = field(default_factory=dict)  # metrics in which the sides differ
    uncounted: Failure | None = None  # the side whose metrics could not be counted
    failure: Failure | None = None
    differences: list[float] = field(default_factory=list)  # log HEAD over BASE, one a round
    disturbed: int = 0  # rounds given up
    head_ms: list[list[float]] = field(default_factory=list)  # HEAD's samples in each round that counts
    head_repeats: int = 1  # most forwards in one of these
    proofs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # side -> proof of its lowering


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
