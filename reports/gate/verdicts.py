"""Two sets of launches to verdicts: pure functions over paired log differences. MEASUREMENT.md, 'Two revisions'.

A difference d_k is the log of HEAD's time over BASE's in round k, one for each case and round. Positive is slower.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mixprof.reports.statistics import Key, discoveries, half_width, t_chance, t_quantile

LOOKS = (5, 8, 12, 16)  # rounds after which verdicts are looked for
MORE_LOOKS = (24, 32, 48, 64)  # and of a job that is told to go on with what is open
RATE = 0.0025  # false discovery rate at each look
THRESHOLD, SAME, FAMILY_THRESHOLD = 0.02, 0.03, 0.01  # relative changes
PRIOR = 4  # degrees of freedom that the grid's variance counts for in a case's own


@dataclass(frozen=True)
class Verdict:
    """What a look says of one case, family or grid. Changes are relative: 0.05 is 5 % slower."""

    verdict: str  # "regressed", "improved", "same" or "inconclusive"
    change: float
    low: float  # two-sided 95 % interval
    high: float
    rounds: int
    p: float  # of a slow-down, one-sided

    @property
    def open(self) -> bool:
        return self.verdict == "inconclusive"


def judge(
    differences: Mapping[Key, Sequence[float]], threshold: float | Mapping[Key, float] = THRESHOLD
) -> dict[Key, Verdict]:
    """The verdicts of one look over a grid of cases, each with at least two rounds.

    A variance is never taken below the grid's: with few rounds, the smallest of many is small by chance.
    """
    errors = _errors(differences)
    shifts = {key: Shift(float(np.mean(values)), errors[key], len(values)) for key, values in differences.items()}
    return decide(shifts, RATE, threshold)


@dataclass(frozen=True)
class Shift:
    """How far a case's times moved, in log units, and the standard error of that over so many rounds or runs."""

    mean: float
    error: float
    rounds: int
    creeps: bool = False  # regressed whatever the shift

    @property
    def t(self) -> float:
        """How many standard errors the shift is."""
        return self.mean / self.error if self.error > 0 else math.copysign(math.inf, self.mean) if self.mean else 0.0


def decide(
    shifts: Mapping[Key, Shift], rate: float, threshold: float | Mapping[Key, float] = THRESHOLD
) -> dict[Key, Verdict]:
    """The verdict of each shift, at a false discovery rate over all of them; the worst one where several hold."""
    slower = {key: float(t_chance(shift.rounds - 1, -shift.t)) for key, shift in shifts.items()}
    faster = {key: float(t_chance(shift.rounds - 1, shift.t)) for key, shift in shifts.items()}
    regressed, improved = discoveries(slower, rate), discoveries(faster, rate)
    verdicts = {}
    for key, shift in shifts.items():
        share = threshold[key] if isinstance(threshold, Mapping) else threshold
        mean, least = shift.mean, math.log1p(share)
        half, to_upper = (float(half_width(shift.error, shift.rounds - 1, chance)) for chance in (0.975, 0.95))
        is_same = "same" if mean + to_upper < same_below(share) else "inconclusive"
        word = "improved" if key in improved and -mean > least else is_same
        word = "regressed" if (key in regressed and mean > least) or shift.creeps else word
        low, high = math.expm1(mean - half), math.expm1(mean + half)
        verdicts[key] = Verdict(word, math.expm1(mean), low, high, shift.rounds, slower[key])
    return verdicts


def same_below(threshold: float) -> float:
    """Where the upper bound of what is the same must lie, in log units: as far above the threshold as 3 % above 2 %."""
    return math.log1p(SAME + max(0.0, threshold - THRESHOLD))


def _errors(differences: Mapping[Key, Sequence[float]]) -> dict[Key, float]:
    """Standard error of each mean, its variance moderated: max(s^2, (4 s0^2 + (K-1) s^2) / (K+3)), s0^2 the median."""
    variances = {key: float(np.var(values, ddof=1)) for key, values in differences.items()}
    prior = float(np.median(list(variances.values()))) if variances else 0.0
    errors = {}
    for key, variance in variances.items():
        rounds = len(differences[key])
        moderated = (PRIOR * prior + (rounds - 1) * variance) / (PRIOR + rounds - 1)
        errors[key] = math.sqrt(max(variance, moderated) / rounds)
    return errors


def together(differences: Mapping[Key, Sequence[float]]) -> list[float]:
    """A family's difference in each round: the mean over the cases that have that round."""
    rounds = max((len(values) for values in differences.values()), default=0)
    columns = [[values[k] for values in differences.values() if len(values) > k] for k in range(rounds)]
    return [float(np.mean(column)) for column in columns]


def rounds_to_decide(verdict: Verdict, deviation: float, threshold: float = THRESHOLD) -> int | None:
    """How many rounds in all would decide an open verdict if its mean stays; None when a thousand would not.

    deviation: of the rounds' differences, in log units.
    """
    mean = math.log1p(verdict.change)
    below, above = same_below(threshold) - mean, abs(mean) - math.log1p(threshold)
    for rounds in range(verdict.rounds + 1, 1000):
        error = deviation / math.sqrt(rounds)
        is_same = below > float(half_width(error, rounds - 1, 0.95))
        is_changed = above > 0 and abs(mean) > float(half_width(error, rounds - 1, 1 - RATE))
        if is_same or is_changed:
            return rounds
    return None


def smallest_detectable(deviation: float, rounds: int, threshold: float = THRESHOLD, power: float = 0.8) -> float:
    """The relative slow-down that is found with this power after so many rounds: (t(1 - a) + t(power)) s / sqrt(K)."""
    t = float(t_quantile(rounds - 1, 1 - RATE) + t_quantile(rounds - 1, power))
    return max(threshold, math.expm1(t * deviation / math.sqrt(rounds)))
