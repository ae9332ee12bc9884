"""A run against stored ones: pure functions over log ratios to the anchor. MEASUREMENT.md, 'Against a stored run'.

Each value is one run's x = log(T / T_anchor_v1) of a case, oldest first. Positive shifts are slower.
"""

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mixprof.reports.gate.verdicts import THRESHOLD, Shift, Verdict, decide
from mixprof.reports.statistics import Key, t_quantile

LEAST_RUNS = 8  # stored, before a time has a verdict
WINDOW = 30  # the last runs that a level is taken of
HORIZON = 120  # the last runs among which a change is looked for
RATE = 0.005  # false discovery rate of one check; a history is checked many times
SLACK, ALARM = 0.75, 6.0  # of the CUSUM, in standard deviations
MOST_Z = 2.0  # that one run adds to the CUSUM
PENALTY = 3.0  # of a change, times log(runs), in standard deviations
LEAST_SPREAD = 1e-3  # log units: below it nothing counts as a change


@dataclass(frozen=True)
class Level:
    """Where a case's times lie since they last changed."""

    center: float  # median
    spread: float  # 1.4826 MAD; of a single run that of its launches
    runs: int
    cusum: float = 0.0  # of the runs so far
    began: int = 0  # index of the first run since the last change
    step: float | None = None  # that change, in log units


def level(values: Sequence[float], errors: Sequence[float]) -> Level:
    """The level of stored runs: of the last 30 since the last change. errors: standard error of each value."""
    change = changes(values[-HORIZON:])[-1:]
    began = max(0, len(values) - HORIZON) + (change[0] if change else 0)
    since = values[began:]
    before = values[max(0, len(values) - HORIZON) : began]
    cusum = 0.0
    for index in range(LEAST_RUNS, len(since)):
        cusum = accumulate(cusum, z_score(since[index], _level(since[:index]), errors[began + index]))
    now = _level(since)
    step = now.center - float(np.median(before[-WINDOW:])) if change else None
    return replace(now, cusum=cusum, began=began, step=step)


def _level(values: Sequence[float]) -> Level:
    recent = np.asarray(values[-WINDOW:])
    center = float(np.median(recent))
    return Level(center, 1.4826 * float(np.median(np.abs(recent - center))), len(recent))


def z_score(value: float, level: Level, error: float) -> float:
    """How many standard deviations a run lies above a level whose median is itself uncertain."""
    return Shift(value - level.center, _deviation(level, error), level.runs).t


def _deviation(level: Level, error: float) -> float:
    return max(level.spread, error) * math.sqrt(1 + 1.57 / level.runs)


def accumulate(cusum: float, z: float) -> float:
    """The one-sided CUSUM after one more run (Page 1954), which counts for two deviations at most (Hawkins 1993).

    Without that bound a single run at z = 7 would be an alarm, whatever the threshold: five in a row are needed.
    """
    return max(0.0, cusum + min(z, MOST_Z) - SLACK)


def judge(
    levels: Mapping[Key, Level],
    present: Mapping[Key, tuple[float, float]],
    threshold: float | Mapping[Key, float] = THRESHOLD,
) -> dict[Key, Verdict]:
    """The verdicts of a run over the cases whose level at least eight stored runs give.

    present: x and its standard error. A slow creep that no single run shows is regressed by its CUSUM.
    """
    shifts = {}
    for key, level in levels.items():
        if key in present and level.runs >= LEAST_RUNS:
            value, error = present[key]
            shift = Shift(value - level.center, _deviation(level, error), level.runs)
            shifts[key] = replace(shift, creeps=creeps(level, shift.t))
    return decide(shifts, RATE, threshold)


def creeps(level: Level, z: float) -> bool:
    """Whether the CUSUM is over its alarm with a run at z."""
    return accumulate(level.cusum, z) > ALARM


def detectable(level: Level, threshold: float = THRESHOLD, power: float = 0.8) -> float:
    """The relative slow-down of one run that is found with this power: (t(1 - a) + t(power)) s."""
    t = float(t_quantile(level.runs - 1, 1 - RATE) + t_quantile(level.runs - 1, power))
    return max(threshold, math.expm1(t * _deviation(level, 0.0)))


def changes(values: Sequence[float], least: int = LEAST_RUNS) -> list[int]:
    """Where the level of a series changes: the first index of each segment but the first.

    Exact: dynamic programming over all partitions into segments of at least `least` values, minimising the sum of
    absolute deviations from each segment's median plus a penalty a change (optimal partitioning, Jackson et al. 2005).
    Deviations are absolute so that one bad run is no change. The unit is the spread of steps from run to run, which a
    change of level leaves alone.
    """
    runs = len(values)
    if runs < 2 * least:
        return []
    steps = np.abs(np.diff(values))
    unit = max(1.4826 * float(np.median(steps)) / math.sqrt(2), LEAST_SPREAD)
    penalty = PENALTY * math.log(runs) * unit
    best, before = [0.0] + [math.inf] * runs, [0] * (runs + 1)
    costs = [_costs(values[start:]) for start in range(runs)]
    for end in range(least, runs + 1):
        for start in [0, *range(least, end - least + 1)]:
            cost = best[start] + costs[start][end - start] + (penalty if start else 0.0)
            if cost < best[end]:
                best[end], before[end] = cost, start
    starts, end = [], before[runs]
    while end:
        starts.append(end)
        end = before[end]
    return starts[::-1]


def _costs(values: Sequence[float]) -> list[float]:
    """For each n, the sum of absolute deviations of the first n values from their median."""
    ordered: list[float] = []
    costs = [0.0]
    for value in values:
        bisect.insort(ordered, value)
        half = len(ordered) // 2
        costs.append(sum(ordered[len(ordered) - half :]) - sum(ordered[:half]))
    return costs
