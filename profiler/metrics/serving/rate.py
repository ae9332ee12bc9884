"""The largest Poisson rate at which a percentile keeps its limit, by bisection, with an interval."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from mixprof.metrics.serving import percentiles
from mixprof.metrics.serving.queue import Answered

LOOKS = 12  # rates that are tried, at most
NARROW = 1.04  # ratio of the interval's ends at which nothing more is tried
WARM_UP = 0.1  # of a load's queries
SHARE = 0.99
Word = Literal["keeps", "breaks", "open"]


@dataclass
class Found:
    """The rates that were tried, each with what was seen. Larger ones break what smaller ones break."""

    tried: list[tuple[float, Word]] = field(default_factory=list)

    @property
    def keeps(self) -> float | None:
        """The largest rate that keeps the limit."""
        return max((rate for rate, word in self.tried if word == "keeps"), default=None)

    @property
    def breaks(self) -> float | None:
        return min((rate for rate, word in self.tried if word == "breaks"), default=None)


def judge(answered: Answered, limit_s: float, looks: int = LOOKS) -> Word:
    """Whether a load's p99 keeps a limit; "open" where its queries are too few to tell.

    Two-sided 95 % over all looks together, by Bonferroni: a one-sided bound of the share over the limit.
    """
    counted = answered.after(WARM_UP)
    over = counted.latencies_s > limit_s
    worth = len(over) / percentiles.design_effect(over, counted.cycles)
    late, chance = over.mean() * worth, 1 - SHARE
    alpha = (1 - percentiles.CHANCE) / 2 / looks
    if percentiles.at_most(late, worth, chance) <= alpha:
        return "keeps"
    return "breaks" if 1 - percentiles.at_most(late - 1, worth, chance) <= alpha else "open"


def search(load: Callable[[float], Answered], limit_s: float, capacity: float) -> Found:
    """Bisect between a tenth of the service's capacity, or less, and a rate that it cannot keep up with.

    load: a rate per second -> how its queries were answered. A rate that stays open has both its sides looked at.
    """
    found = Found()
    rate = capacity / 2
    for _ in range(LOOKS):
        found.tried.append((rate, judge(load(rate), limit_s)))
        following = _next(found, capacity)
        if following is None:
            break
        rate = following
    return found


def _next(found: Found, capacity: float) -> float | None:
    """The rate that tells most: within the wider of the gaps beside what is open."""
    low, high = found.keeps, found.breaks
    undecided = [rate for rate, word in found.tried if word == "open"]
    if low is None:
        lowest = min(rate for rate, _ in found.tried)
        return lowest / 3 if lowest > capacity / 300 else None
    if high is None:
        return max(rate for rate, _ in found.tried) * 1.5
    inside = [rate for rate in undecided if low < rate < high]
    gaps = [(low, min(inside)), (max(inside), high)] if inside else [(low, high)]
    left, right = max(gaps, key=lambda gap: gap[1] / gap[0])
    return math.sqrt(left * right) if right / left > NARROW else None
