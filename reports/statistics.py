"""How sure a latency, a ratio, a slope or a share is: the one home of t, moderation, Wilson and Benjamini-Hochberg.

A log latency is its case's mean, plus what all cases of a round share, such as the machine's drift, plus the case's
own. `measured` tells the two apart and moderates the own variances over the run's cases; `contrast` is the error of any
weighted sum of log latencies: of one, of a ratio, of a slope, of a ratio between two places. What is shared cancels in
it as far as the weights of a run's cases do.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaln, digamma, fdtrc, polygamma, stdtr, stdtrit

from mixprof.sampling import Interval

LEAST_CASES = 8  # of equal rounds, for moderation; of fewer every contrast is a plain t over its rounds
PASSES = 3  # of weighting cases by their variances
STANDS_OUT = 0.12  # a variance that is as large beside the others' with less than this chance stays as it is
COMMON = 0.1  # correlation of the errors of moderated variances, by scripts/proofs/ratio_coverage.py
FLOOR = 1e-4, 1e-18  # of a variance: a share of their median, and what rounding makes of none
PRIOR_FREEDOMS = np.geomspace(0.5, 200, 20)
PRIOR_SCALES = np.exp(np.linspace(-3.5, 3.5, 29))  # times the median of the variances

FIRST_OVER_SECOND = np.array([1.0, -1.0])  # the weights of a ratio

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Points:
    """Natural logarithms of measurements and how sure they are, each (..., n), or (n,) where that is the same for all.

    `errors` and `freedoms` are of what is a point's own; `shared` and `shared_freedoms` are the variance, with its
    sign, of what the points of one group have in common. `rounds` are the logs of each round, (..., n, rounds), of
    points with too few others beside them to tell the two apart, NaN elsewhere; None: nowhere.
    """

    logs: np.ndarray
    errors: np.ndarray
    freedoms: np.ndarray
    shared: np.ndarray
    shared_freedoms: np.ndarray
    groups: np.ndarray
    rounds: np.ndarray | None = None

    @classmethod
    def independent(cls, logs: np.ndarray, errors: np.ndarray, freedoms: np.ndarray) -> "Points":
        """Points that have nothing in common."""
        count = logs.shape[-1]
        return cls(logs, errors, freedoms, np.zeros(count), np.ones(count), np.arange(count))

    def at(self, where: Any) -> "Points":
        """Some of the points, as an index of arrays takes them: all arrays must be of one shape."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: array[where] for name, array in arrays.items() if array is not None})


def measured(logs: np.ndarray) -> Points:
    """The means over rounds of cases that have the same rounds, at least two. (..., cases, rounds) -> (..., cases)."""
    cases, rounds = logs.shape[-2:]
    means = logs.mean(axis=-1)
    one_group, launches = np.zeros(means.shape, dtype=int), np.full(means.shape, rounds - 1.0)
    if cases >= LEAST_CASES:
        own, freedoms, shared = _apart(logs)
        return Points(means, own, freedoms, np.broadcast_to(shared, means.shape), launches, one_group)
    errors = logs.std(axis=-1, ddof=1) / math.sqrt(rounds)
    return Points(means, errors, launches, np.zeros(means.shape), launches, one_group, logs)


def _apart(logs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The standard errors of what is each case's own, their degrees of freedom, and the variance of what is shared.

    The shared part of a round is the mean over cases of how far they are from their own means, weighted by their
    variances; a variance comes of (rounds - 1) (1 - the case's share of the weights) degrees of freedom. That of the
    shared part is unbiased: below 0 where the cases' own parts happen to cancel.
    """
    rounds = logs.shape[-1]
    away = logs - logs.mean(axis=-1, keepdims=True)
    shares = np.full(logs.shape[:-1], 1 / logs.shape[-2])
    for _ in range(PASSES):
        common = (shares[..., None] * away).sum(axis=-2, keepdims=True)
        freedoms = (rounds - 1) * (1 - shares)
        variances, moderated_freedoms = moderated(((away - common) ** 2).sum(axis=-1) / freedoms, freedoms)
        precision = (1 / variances).sum(axis=-1, keepdims=True)
        shares = 1 / variances / precision
    shared = (common**2).sum(axis=-1) / (rounds - 1) - 1 / precision
    return np.sqrt(variances / rounds), moderated_freedoms, shared / rounds


def moderated(variances: np.ndarray, freedoms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variances with the others' taken into account, and their degrees of freedom. (..., cases) each.

    Smyth's prior (2004), a scaled inverse chi squared, whose scale and degrees of freedom are integrated over instead
    of estimated, flat in the scale's logarithm and in the spread of log variances: of a dozen cases the estimates are
    off by as much as they are good for. A case's posterior is then matched in the first two moments of its logarithm.
    """
    middle = np.median(variances, axis=-1, keepdims=True)
    variances = np.maximum(variances, np.maximum(FLOOR[0] * middle, FLOOR[1]))
    scales = np.maximum(middle, FLOOR[1])[..., None, None] * PRIOR_SCALES[:, None]
    seen, own = variances[..., None, None], freedoms[..., None, None]
    ratios = seen / scales  # (..., cases, scales, 1), of F were the prior true
    chances = _chances(ratios, own)
    half = (own + PRIOR_FREEDOMS) / 2
    logs = np.log((PRIOR_FREEDOMS * scales + own * seen) / 2) - digamma(half)
    mean = (chances * logs).sum(axis=(-2, -1))
    spread = (chances * (logs**2 + polygamma(1, half))).sum(axis=(-2, -1)) - mean**2
    half = (1 + np.sqrt(1 + 2 * spread)) / 2 / spread  # its trigamma, about 1 / half + 1 / 2 half^2, is the spread
    alone = (chances * fdtrc(own, PRIOR_FREEDOMS, ratios)).sum(axis=(-2, -1)) < STANDS_OUT
    return np.where(alone, variances, np.exp(mean + digamma(half)) / half), np.where(alone, freedoms, 2 * half)


def _chances(ratios: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The posterior of the prior's scale and freedoms, (..., 1, scales, freedoms), from densities of log F."""
    densities = own / 2 * np.log(own / PRIOR_FREEDOMS * ratios) - betaln(own / 2, PRIOR_FREEDOMS / 2)
    densities = densities - (own + PRIOR_FREEDOMS) / 2 * np.log1p(own / PRIOR_FREEDOMS * ratios)
    spreads = np.sqrt(polygamma(1, PRIOR_FREEDOMS / 2))  # of log variances
    chances = densities.sum(axis=-3, keepdims=True) + np.log(-np.gradient(spreads))
    chances = np.exp(chances - chances.max(axis=(-2, -1), keepdims=True))
    return np.asarray(chances / chances.sum(axis=(-2, -1), keepdims=True))


def contrast(weights: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
    """Standard error and degrees of freedom of a weighted sum of points. weights (..., n) -> (...).

    Where all points are of too few cases of the same rounds, the sum is taken round by round.
    """
    together = points.groups[..., :, None] == points.groups[..., None, :]
    in_common = (weights[..., None, :] @ together)[..., 0, :]
    own = (weights * points.errors) ** 2
    shared = (weights * in_common * points.shared).sum(axis=-1)
    error, freedom = _added(own, points.freedoms, shared, points.shared_freedoms.min(axis=-1))
    if points.rounds is None:
        return error, freedom
    by_round, of_rounds = _by_round(weights, points.rounds)
    directly = together.all(axis=(-2, -1)) & np.isfinite(by_round)
    return np.where(directly, by_round, error), np.where(directly, of_rounds, freedom)


def _added(
    own: np.ndarray, freedoms: np.ndarray, shared: np.ndarray, shared_freedom: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The root of the sum of own variances, (..., n), and a shared one, (...), and its degrees of freedom. -> (...).

    Satterthwaite's (1946), but the errors of own variances correlate: of these, 1 / f = sum over all pairs of
    r s t / sqrt(f g), s and t their shares of the sum.
    """
    total = np.maximum(own.sum(axis=-1) + shared, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = own / total[..., None] / np.sqrt(freedoms)
        of_own = COMMON * errors.sum(axis=-1) ** 2 + (1 - COMMON) * (errors**2).sum(axis=-1)
        freedom = 1 / (of_own + (shared / total) ** 2 / shared_freedom)
    return np.sqrt(total), np.where(total > 0, freedom, freedoms.min(axis=-1))


def _by_round(weights: np.ndarray, rounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the weighted sum in each round: the standard error of its mean, NaN without two rounds, and its freedoms."""
    sums = (weights[..., None] * rounds).sum(axis=-2)
    count = np.isfinite(sums).sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        away = sums - np.nansum(sums, axis=-1, keepdims=True) / count[..., None]
        return np.sqrt(np.nansum(away**2, axis=-1) / (count - 1) / count), count - 1.0


def half_width(error: ArrayLike, freedom: ArrayLike, chance: float = 0.975) -> np.ndarray:
    """How far a one-sided bound of this chance lies from the estimate; that of 0.975 is a two-sided 95 %."""
    return np.asarray(t_quantile(freedom, chance) * error)


def t_quantile(freedom: ArrayLike, chance: float) -> Any:
    """What Student's t stays below with this chance."""
    return stdtrit(freedom, chance)


def t_chance(freedom: ArrayLike, value: ArrayLike) -> Any:
    """With which chance Student's t stays below a value."""
    return stdtr(freedom, value)


def over_launches(medians: Sequence[float]) -> Interval:
    """95 % t interval in log units over the medians of at least two launches, of a case by itself."""
    if len(medians) < 2:
        raise ValueError(f"got {len(medians)} launches, expected at least 2")
    logs = np.log(medians)
    half = float(half_width(logs.std(ddof=1) / np.sqrt(len(logs)), len(logs) - 1))
    center = float(logs.mean())
    return Interval(math.exp(center), math.exp(center - half), math.exp(center + half))


def wilson(hits: int, of: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of a share (Wilson 1927). ValueError for a share of nothing."""
    if not 0 <= hits <= of or of < 1:
        raise ValueError(f"got {hits} of {of}, expected a share of at least one")
    from scipy.stats import binomtest  # not above: importing it takes most of a second, which few commands need

    low, high = binomtest(hits, of).proportion_ci(confidence, method="wilson")
    return float(low), float(high)


def discoveries(p: Mapping[Key, float], rate: float) -> set[Key]:
    """Whose hypotheses Benjamini and Hochberg (1995) reject at a false discovery rate."""
    from scipy.stats import false_discovery_control

    adjusted = false_discovery_control(list(p.values())) if p else ()
    return {key for key, value in zip(p, adjusted, strict=True) if value <= rate}
