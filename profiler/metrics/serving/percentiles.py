"""Percentiles without a distribution: order statistics with binomial bounds, and MLPerf's early stopping.

The bounds hold for independent latencies. Those of a queue are not: one slow answer delays all behind it. Queries
between two moments at which the service is idle depend on no others, so that the scatter of these cycles says how many
independent queries the run is worth; the bounds are of that many (Woodruff, 1952, with Kish's design effect).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import betainc, stdtrit

from mixprof.data.served import Percentile

SHARES = (0.5, 0.9, 0.99)
CHANCE = 0.95  # of the two-sided bounds
CONFIDENCE = 0.99  # MLPerf's, of early stopping
LEAST_CYCLES = 30  # else as many blocks of equal length stand for them
LEAST_TOLD = 4  # degrees of freedom that a scatter is taken to have, at least: few late queries are proof of few


def at_most(count: float, trials: float, chance: float) -> float:
    """The chance of at most `count` successes in so many trials, neither of them necessarily whole."""
    if count < 0:
        return 0.0
    return 1.0 if count >= trials else float(betainc(trials - count, count + 1, 1 - chance))


def percentile(latencies_s: np.ndarray, share: float, cycles: np.ndarray, chance: float = CHANCE) -> Percentile:
    """The order statistic of a share, with bounds, in milliseconds; None where the run is too short for a bound.

    latencies_s: in the order of arrival. cycles: (n,), the number of the cycle that each belongs to.
    """
    ordered = np.sort(latencies_s)
    count = len(ordered)
    estimate = ordered[math.ceil(share * count) - 1]
    worth = count / design_effect(latencies_s > estimate, cycles)
    low, high = bounds(worth, share, chance)
    return Percentile(
        share,
        _ms(estimate),
        _ms(ordered[max(0, math.ceil(low / worth * count) - 1)]) if low else None,
        _ms(ordered[min(count, math.ceil(high / worth * count)) - 1]) if high else None,
        worth,
    )


def _ms(seconds: float) -> float | None:
    return 1e3 * float(seconds) if math.isfinite(seconds) else None


def bounds(trials: float, share: float, chance: float = CHANCE) -> tuple[int | None, int | None]:
    """Ranks, from 1, of the order statistics that bound a percentile from both sides; None where there is none."""
    tail, most = (1 - chance) / 2, math.floor(trials)
    low = _first(lambda rank: at_most(rank - 1, trials, share) > tail, 1, most + 1) - 1
    high = _first(lambda rank: at_most(rank - 1, trials, share) >= 1 - tail, 1, most + 1)
    return low or None, high if high <= most else None


def _first(holds: object, least: int, most: int) -> int:
    """The smallest whole number from `least` on for which a monotone condition holds; `most` where it never does."""
    assert callable(holds)
    while least < most:
        middle = (least + most) // 2
        least, most = (least, middle) if holds(middle) else (middle + 1, most)
    return least


def design_effect(over: np.ndarray, cycles: np.ndarray) -> float:
    """How many queries are worth one independent one, by the scatter of what each cycle has over a latency."""
    count, share = len(over), float(over.mean())
    numbers = np.unique(cycles, return_inverse=True)[1]
    if numbers[-1] + 1 < LEAST_CYCLES:
        numbers = np.arange(count) * LEAST_CYCLES // count
    away = np.bincount(numbers, over - share)
    filled = np.bincount(numbers, over) > 0
    if not 0 < share < 1:
        return 1.0
    effect = float((away**2).sum()) / (count * share * (1 - share))
    told = max(int(filled.sum()) - 1, LEAST_TOLD)  # cycles that tell anything of the tail
    return max(1.0, effect * float(stdtrit(told, 0.975) / stdtrit(np.inf, 0.975)) ** 2)


def least_under(over: int, share: float) -> int:
    """Queries under a latency that MLPerf asks beside `over` ones to claim a percentile: its early stopping."""
    enough = 2
    while at_most(over, enough + over, 1 - share) > 1 - CONFIDENCE:
        enough *= 2
    return _first(lambda under: at_most(over, under + over, 1 - share) <= 1 - CONFIDENCE, 1, enough)


def stopped_early(latencies_s: Sequence[float] | np.ndarray, share: float) -> tuple[float | None, int]:
    """MLPerf's estimate of a percentile, in milliseconds, and the queries that the least such estimate takes.

    The t-th highest latency, of the largest t from 1 up with which the claim stands; None where not even 1 does.
    """
    count, least = len(latencies_s), least_under(1, share) + 1
    if count < least:
        return None, least
    most = _first(lambda over: count < least_under(over, share) + over, 2, count + 1) - 1
    return _ms(np.sort(np.asarray(latencies_s))[count - most]), least
