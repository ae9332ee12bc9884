"""One side against itself, alike or with extra work: what a gate can tell on a machine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mixprof.data.case import Case
from mixprof.data.errors import NotTrusted, UsageError
from mixprof.gate import grid
from mixprof.gate.rounds import Entry, Rounds
from mixprof.gate.sides import Side
from mixprof.plan.settings import Axes, Measure
from mixprof.plan.sources import Registry
from mixprof.run.session import session

LEAST_ROUNDS = 5  # undisturbed, of a case that counts


@dataclass(frozen=True)
class Work:
    """So many rounds, in which one side does a share of extra work."""

    folder: Path  # a new one for their samples
    rounds: int
    share: float


def cases_against_themselves(
    groups: Sequence[Axes], here: Side, measure: Measure, registry: Registry
) -> list[tuple[grid.Planned, Case]]:
    """Plan the cases of a side. UsageError where none can be run."""
    with session(measure, registry, side=here.origin) as asked:
        planned = grid.of_side(groups, here, asked)
    possible = [(entry, case) for case, entry in planned.items() if entry.reason is None]
    if not possible:
        reasons = [entry.reason for entry in planned.values()]
        raise UsageError(f"no case can be run here: {reasons[0] if reasons else 'the axes are empty'}")
    return possible


def against_itself(
    cases: Sequence[tuple[grid.Planned, Case]], here: Side, measure: Measure, work: Work, say: Callable[[str], None]
) -> dict[Case, list[float]]:
    """Log differences of every case against itself, a round each.

    Raises UsageError for a case that fails, NotTrusted when none has LEAST_ROUNDS undisturbed rounds.
    """
    work.folder.mkdir()
    entries = [Entry.itself(planned, case) for planned, case in cases]
    rounds = Rounds((here, here), measure, work.folder, work.share)
    for number in range(1, work.rounds + 1):
        rounds.run(entries, None, stop=lambda: False)
        say(f"round {number} of {work.rounds}, {work.share:.0%} injected")
        if number == LEAST_ROUNDS and not any(entry.pair.differences for entry in entries):
            break  # nothing but disturbed rounds, or failures: more of them tell no more
    for entry in entries:
        if failure := entry.pair.failure:
            raise UsageError(
                f"{entry.pair.case.label()} is {failure.status} ({failure.reason}), expected cases that run here: "
                "name others with --models"
            )
    pools = {entry.pair.case: entry.pair.differences for entry in entries}
    if not any(len(pool) >= LEAST_ROUNDS for pool in pools.values()):
        raise NotTrusted("too much CPU time was lost to others in every round: end what else runs here, and try again")
    return {case: pool for case, pool in pools.items() if len(pool) >= LEAST_ROUNDS}
