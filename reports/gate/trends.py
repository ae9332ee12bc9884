"""What changed over a history, and when: one series a case and testbed, which never mix."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from mixprof.data.pairs import Timed
from mixprof.reports.gate.check import COMPARES, differing
from mixprof.reports.gate.history import HORIZON, changes
from mixprof.reports.gate.stored import MACHINE_FAULTS, Kept, Stored
from mixprof.reports.statistics import t_quantile

LEAST = 5  # runs on either side of a change of time
PERMUTATIONS, CHANCE = 1999, 0.005  # of a series that did not change, to be taken for one that did
KEYS = ("gpus[0]", "gpus[0].name", "cpu", "cpu.model")  # what a testbed is called after


@dataclass(frozen=True)
class Step:
    """A change of level: how much, with its 95 % interval in log units, and how likely it is by chance."""

    size: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Change:
    """A case that changed between two runs that follow one another in its series."""

    timed: Timed
    before: Stored
    after: Stored
    time: Step | None = None
    exact: Mapping[str, tuple[int, int]] | None = None  # counts that changed
    status: tuple[str, str] | None = None

    @property
    def is_worse(self) -> bool:
        """Whether it became slower, needs more, or does not run any more."""
        if self.time is not None:
            return self.time.size > 0
        if self.status is not None:
            return self.status[1] not in COMPARES
        return any(after > before for before, after in (self.exact or {}).values())

    @property
    def software(self) -> list[str]:
        """What else changed with it, "torch 2.13.0 -> 2.14.1"."""
        return _software(self.before, self.after)


@dataclass(frozen=True)
class Series:
    """A case on one testbed. A point is a run, its log ratio to the anchor's time and half its 95 % interval."""

    timed: Timed
    points: tuple[tuple[Stored, float, float | None], ...]
    levels: tuple[tuple[int, int, float], ...]  # first and last point, and their median
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Testbed:
    """The runs of one testbed, oldest first, and a series for each of their cases."""

    key: str
    runs: tuple[Stored, ...]
    series: tuple[Series, ...]  # those that changed first

    @property
    def name(self) -> str:
        """ "AMD EPYC, 1a2b3c4d"."""
        words = next((str(self.runs[-1].testbed[key]) for key in KEYS if key in self.runs[-1].testbed), "testbed")
        return f"{words}, {self.key[:8]}"

    @property
    def changes(self) -> list[Change]:
        """All of them, the newest first, the worse ones of a run before the others."""
        everything = [change for series in self.series for change in series.changes]
        return sorted(everything, key=lambda change: (change.after.time, change.is_worse), reverse=True)

    @property
    def software(self) -> list[tuple[Stored, list[str]]]:
        """The runs with which versions changed, and these."""
        pairs = itertools.pairwise(self.runs)
        return [(after, words) for before, after in pairs if (words := _software(before, after))]


def _software(before: Stored, after: Stored) -> list[str]:
    names = sorted({*before.versions, *after.versions})
    values = [(name, before.versions.get(name), after.versions.get(name)) for name in names]
    return [f"{name} {old or 'none'} -> {new or 'none'}" for name, old, new in values if old != new]


def by_testbed(runs: Sequence[Stored]) -> list[Testbed]:
    """The trends of these runs, testbed by testbed; of each the newest 120 runs."""
    by_key: dict[str, list[Stored]] = {}
    for run in sorted(runs, key=lambda run: run.time):
        by_key.setdefault(run.key, []).append(run)
    return [_testbed(key, mine[-HORIZON:]) for key, mine in sorted(by_key.items())]


def _testbed(key: str, runs: Sequence[Stored]) -> Testbed:
    kept = dict.fromkeys(timed for run in reversed(runs) for timed in run.cases)
    series = [of_timed(timed, [(run, run.cases[timed]) for run in runs if timed in run.cases]) for timed in kept]
    return Testbed(key, tuple(runs), tuple(sorted(series, key=lambda one: (not one.changes, one.timed.label()))))


def of_timed(key: Timed, runs: Sequence[tuple[Stored, Kept]]) -> Series:
    """The series of a case in the runs that have it, oldest first."""
    timed = [(run, kept.log_ratio, _half(kept)) for run, kept in runs if kept.log_ratio is not None]
    values = [value for _, value, _ in timed]
    steps = steps_of(values)
    bounds = [0, *steps, len(values)] if values else []
    spans = itertools.pairwise(bounds)
    levels = tuple((first, after - 1, float(np.median(values[first:after]))) for first, after in spans)
    timed_changes = [Change(key, timed[at - 1][0], timed[at][0], time=step) for at, step in steps.items()]
    return Series(key, tuple(timed), levels, (*timed_changes, *_exact_changes(key, runs)))


def _half(kept: Kept) -> float | None:
    """Half of the 95 % t interval over launches; None for a single one, which has none."""
    alone = kept.spread is None or kept.launches < 2
    return None if alone else float(t_quantile(kept.launches - 1, 0.975)) * kept.error


def _exact_changes(key: Timed, runs: Sequence[tuple[Stored, Kept]]) -> Iterator[Change]:
    """Every run with which counts or the status changed. What a busy machine made of a case is no status of its own."""
    measured = [(run, kept) for run, kept in runs if kept.status not in MACHINE_FAULTS]
    for (before, old), (after, new) in itertools.pairwise(measured):
        if old.status != new.status:
            yield Change(key, before, after, status=(old.status, new.status))
        if exact := differing(old, new):
            yield Change(key, before, after, exact=exact)


def steps_of(values: Sequence[float]) -> dict[int, Step]:
    """The changes of level in a series, by the index of the first value after each.

    Candidates come from the best partition (`changes`). Each must survive a permutation test between its neighbours;
    the least credible one is dropped first, which joins the two segments that it parted.
    """
    kept = changes(values, LEAST) if len(values) >= 2 * LEAST else []
    while kept:
        bounds = [0, *kept, len(values)]
        around = list(zip(bounds[:-2], kept, bounds[2:], strict=True))
        chances = [_chance(np.asarray(values[first:last])) for first, _, last in around]
        worst = int(np.argmax(chances))
        if chances[worst] <= CHANCE:
            segments = [(values[first:at], values[at:last]) for first, at, last in around]
            return {at: Step(*shift(*pair), p) for at, pair, p in zip(kept, segments, chances, strict=True)}
        del kept[worst]
    return {}


def _chance(values: np.ndarray) -> float:
    """How often values in random order part as much somewhere, by the largest standardised rank sum of all places.

    That no place was chosen beforehand is in it: exact for exchangeable values (Pettitt 1979 has its limit).
    """
    ranks = np.argsort(np.argsort(values)) + 1.0
    orders = np.random.default_rng(0).permuted(np.tile(ranks, (PERMUTATIONS, 1)), axis=1)
    largest = _largest(np.vstack([ranks, orders]))
    return float(np.mean(largest >= largest[0] - 1e-9))


def _largest(ranks: np.ndarray) -> np.ndarray:
    """(series, runs) -> (series,)"""
    runs = ranks.shape[1]
    sizes = np.arange(LEAST, runs - LEAST + 1)
    sums = np.cumsum(ranks, axis=1)[:, sizes - 1] - sizes * (runs + 1) / 2
    return np.asarray(np.max(np.abs(sums) / np.sqrt(sizes * (runs - sizes) * (runs + 1) / 12), axis=1))


def shift(before: Sequence[float], after: Sequence[float]) -> tuple[float, float, float]:
    """By how much one sample lies above another: Hodges and Lehmann's estimate, and Moses' 95 % interval."""
    differences = np.sort(np.subtract.outer(np.asarray(after), np.asarray(before)).ravel())
    pairs, total = len(differences), len(before) + len(after)
    cut = int(pairs / 2 + float(ndtri(0.025)) * np.sqrt(pairs * (total + 1) / 12))
    low, high = differences[max(cut, 0)], differences[min(pairs - 1 - cut, pairs - 1)]
    return float(np.median(differences)), float(low), float(high)
