"""Rounds until every case is decided, the last look is over, or the budget is spent."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from mixprof.data.case import Case
from mixprof.data.pairs import Timed
from mixprof.gate.rounds import Entry

FORGIVEN = 2  # failures of BASE, where the policy forgives them


class Decides(Protocol):
    """Verdicts over the rounds so far: made by reports, handed in."""

    @property
    def looks(self) -> Sequence[int]:
        """Rounds after which it is asked."""
        ...

    @property
    def forgives_base(self) -> bool:
        """Whether a failure of BASE is tried again."""
        ...

    def decide(self, differences: Mapping[Timed, Sequence[float]]) -> Collection[Timed]:
        """Return those that need no further round."""
        ...

    def refuse(self, names: Sequence[str]) -> None:
        """Raise UsageError for what it was told of cases that these labels do not name."""
        ...


class Runs(Protocol):
    """Rounds of a grid, as `gate.rounds.Rounds` measures them."""

    spent_s: float

    def run(self, entries: Sequence[Entry], canary: Entry | None, stop: Callable[[], bool]) -> None: ...


class Budget:
    """Seconds that a job may take, counted from `start` (of time.monotonic); None: as many as it needs."""

    def __init__(self, seconds: float | None, start: float):
        self.seconds, self.start = seconds, start

    def allows(self, more_s: float) -> bool:
        """Whether so many seconds more end within it."""
        return self.seconds is None or time.monotonic() - self.start + more_s <= self.seconds


def look(
    entries: Sequence[Entry], canary: Entry, rounds: Runs, judge: Decides, budget: Budget, say: Callable[[str], None]
) -> None:
    """Run rounds of these cases, in which each that is decided is measured no more."""
    forgiven: dict[Case, int] = {}
    decided: Collection[Timed] = ()
    for number in range(1, judge.looks[-1] + 1):
        open_ones = [entry for entry in entries if not set(entry.pair.timed) <= set(decided)]
        waiting = [entry for entry in open_ones if _goes_on(entry, judge.forgives_base, forgiven)]
        done = max((len(entry.pair.differences) for entry in entries), default=0)
        if not waiting or (number > 1 and not budget.allows(rounds.spent_s / max(done, 1))):
            return
        rounds.run(waiting, canary, lambda: not budget.allows(0.0))
        say(f"round {number} of at most {judge.looks[-1]}, {len(waiting)} case{'s' * (len(waiting) != 1)}")
        if number in judge.looks:
            decided = judge.decide(differences_of(entries))


def differences_of(entries: Sequence[Entry]) -> dict[Timed, list[float]]:
    """The rounds of each time that has two, which a variance takes."""
    timed = {key: rounds for entry in entries for key, rounds in entry.pair.timed.items()}
    return {key: rounds for key, rounds in timed.items() if len(rounds) >= 2}


def _goes_on(entry: Entry, forgives_base: bool, forgiven: dict[Case, int]) -> bool:
    """Whether a case is still to be measured. A failure of BASE is forgotten, twice, where the policy says so."""
    failure, case = entry.pair.failure, entry.pair.case
    if failure is not None and failure.side == "base" and forgives_base:
        forgiven[case] = forgiven.get(case, 0) + 1
        if forgiven[case] <= FORGIVEN:
            entry.pair.failure = None
    return entry.pair.failure is None
