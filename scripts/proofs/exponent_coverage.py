"""How often exponents, breaks and crossovers are found where they are, on simulated noise: scripts/proofs/noise.py.

    python scripts/proofs/exponent_coverage.py [--quick] [--replicates N]

Prints a Markdown table; exit code 1 when a required rate is missed (with --quick: when its Wilson interval misses it).
Each replicate is a sweep of 50 cases in random order, 3 or 8 rounds, launches of 100 iterations; the case's logarithm
is a known law plus that noise. What is judged is what `mixprof report` prints: mixprof.reports.answers.segments.fit and
mixprof.reports.answers.crossovers.crossings.

- exponent: the 95 % interval of the slope holds the true one. Required: 93 to 97 %.
- break: of a flat or shallow part and a power law; found, and within one step of the grid. Required: 95 %.
- no break: of a straight line; none is reported. Required: 95 %.
- crossover: exactly one is reported, and its 95 % interval holds the true place. Required: reported in 95 %, and of
  those 93 to 97 % hold it.
- no crossover: of two models that are equal everywhere, that touch (equal below, apart above), or that keep their
  order; none is reported. Required: 95 %.
"""

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from mixprof.reports.answers.crossovers import Crossing, crossings
from mixprof.reports.answers.segments import fit
from mixprof.reports.statistics import Points, measured, wilson
from noise import PROFILES, Profile, replicates, sweep_medians

CASES, ITERATIONS = 50, 100
SIDES = np.log([7, 10, 14, 20, 28, 40, 56, 80])
BATCHES = np.log([1, 2, 4, 8, 16])
COVERED, AT_LEAST = (0.93, 0.97), (0.95, 1.0)
HEADER = ["profile", "launches", "what", "truth", "rate % [95 %]", "required"]


@dataclass(frozen=True)
class Law:
    """log T = level + slope (x - break) above the break, and with the left slope below it; x a log place."""

    slope: float
    left: float | None = None  # none: the same slope everywhere
    at: float = 0.0
    level: float = 0.0

    def __call__(self, places: np.ndarray) -> np.ndarray:
        below = self.slope if self.left is None else self.left
        away = places - self.at
        return self.level + np.where(away < 0, below, self.slope) * away


LINES = {  # what it is, its places and its law
    "side^2": (SIDES[:6], Law(2.0)),
    "batch^0.9": (BATCHES, Law(0.9)),
    "side^3.2, three places": (SIDES[2:7:2], Law(3.2)),
}
BREAKS = {
    "flat to 22, then side^2": (SIDES, Law(2.0, 0.0, math.log(22))),
    "side^0.3 to 20, then side^1.8": (SIDES, Law(1.8, 0.3, math.log(20))),
    "flat to 3, then batch^1": (np.log([1, 2, 4, 8, 16, 32]), Law(1.0, 0.0, math.log(3))),
}
CROSSINGS = {  # places, the two laws, the true place
    "side^2 and side^1.4 at 24": (SIDES, Law(2.0, at=math.log(24)), Law(1.4, at=math.log(24)), 24.0),
    "batch^1 and batch^0.6 at 4": (BATCHES, Law(1.0, at=math.log(4)), Law(0.6, at=math.log(4)), 4.0),
    "flat to 22, then side^2, and side^0.5 at 40": (
        SIDES,
        Law(2.0, 0.0, math.log(22)),
        Law(0.5, at=math.log(40), level=2 * math.log(40 / 22)),
        40.0,
    ),
}
NO_CROSSINGS = {
    "equal everywhere": (SIDES, Law(2.0), Law(2.0)),
    "equal to 28, then apart": (SIDES, Law(2.0, 1.0, math.log(28)), Law(1.0, at=math.log(28))),
    "2 % apart everywhere": (SIDES, Law(2.0), Law(2.0, level=0.02)),
    "20 % apart everywhere": (SIDES, Law(2.0), Law(2.0, level=0.2)),
}


@dataclass(frozen=True)
class Rate:
    """How often something held, and within which bounds it should have."""

    what: str
    truth: str
    held: int
    of: int
    required: tuple[float, float]

    def met(self, quick: bool) -> bool:
        low, high = wilson(self.held, self.of) if quick else (self.held / self.of,) * 2
        return low <= self.required[1] and high >= self.required[0]


def noise_points(logs: np.ndarray) -> Points:
    """The noise of cases whose logs would be 0 without. (replicates, cases, launches) -> (replicates, cases)."""
    parts = [measured(part) for part in np.array_split(logs, -(-len(logs) // 50))]  # else gigabytes
    names = ("logs", "errors", "freedoms", "shared", "shared_freedoms", "groups")
    return Points(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def under(noise: Points, cases: np.ndarray, law: np.ndarray) -> Points:
    """Points of a law, in the shape of the cases, under the noise of these. -> (replicates, *cases.shape)."""
    points = noise.at((slice(None), cases))
    return replace(points, logs=points.logs + law)


def rates(logs: np.ndarray) -> Iterator[Rate]:
    """Every rate under the noise of at least 16 cases. logs: (replicates, cases, launches)."""
    count, noise = len(logs), noise_points(logs)
    for truth, (places, law) in LINES.items():
        fitted = fit(places, under(noise, np.arange(len(places)), law(places)))
        yield Rate("exponent", truth, _held(fitted.low, law.slope, fitted.high), count, COVERED)
        yield Rate("no break", truth, int(np.isnan(fitted.breakpoint).sum()), count, AT_LEAST)
    for truth, (places, law) in BREAKS.items():
        fitted = fit(places, under(noise, np.arange(len(places)), law(places)))
        step = np.diff(places).max()
        yield Rate("break", truth, int((np.abs(fitted.breakpoint - law.at) <= step).sum()), count, AT_LEAST)
        yield Rate("exponent", truth, _held(fitted.low, law.slope, fitted.high), count, COVERED)
    for truth, (places, first, second, place) in CROSSINGS.items():
        found_each = [each[0] for each in crossed(places, first, second, noise) if len(each) == 1]
        yield Rate("crossover reported", truth, len(found_each), count, AT_LEAST)
        low, high = (np.array([getattr(each, name) for each in found_each]) for name in ("low", "high"))
        yield Rate("crossover", truth, _held(low, math.log(place), high), len(found_each), COVERED)
    for truth, (places, first, second) in NO_CROSSINGS.items():
        none = sum(not each for each in crossed(places, first, second, noise))
        yield Rate("no crossover", truth, none, count, AT_LEAST)


def _held(low: np.ndarray, truth: float, high: np.ndarray) -> int:
    return int(((low <= truth) & (truth <= high)).sum())


def crossed(places: np.ndarray, first: Law, second: Law, noise: Points) -> Iterator[list[Crossing]]:
    """The crossings that each replicate reports."""
    cases = np.arange(2 * len(places)).reshape(2, -1).T
    points = under(noise, cases, np.stack([first(places), second(places)], axis=-1))
    for replicate in range(len(noise.logs)):
        yield crossings(places, points.at(replicate))


def noise_of(profile: Profile, launches: int, replicates: int) -> np.ndarray:
    """Noise of 16 of the cases of many sweeps, the same for every call. -> (replicates, 16, launches)."""
    rng = np.random.default_rng([launches, replicates, round(1e6 * profile.slow)])
    return sweep_medians(profile, rng, (replicates, 16, launches), CASES, ITERATIONS)


def main() -> int:
    options, missed = replicates(__doc__), []
    print(f"{options.replicates} replicates\n\n| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}", flush=True)
    for name, profile in PROFILES.items():
        for launches in (3, 8):
            for rate in rates(noise_of(profile, launches, options.replicates)):
                low, high = wilson(rate.held, rate.of)
                share = f"{100 * rate.held / rate.of:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
                required = f"{100 * rate.required[0]:.0f} to {100 * rate.required[1]:.0f}"
                print(f"| {name} | {launches} | {rate.what} | {rate.truth} | {share} | {required} |", flush=True)
                if not rate.met(options.quick):
                    missed.append(f"{name}, {launches} launches: {rate.what}, {rate.truth}")
    print(f"\n{'missed: ' + '; '.join(missed) if missed else 'all required rates met'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
