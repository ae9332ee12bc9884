"""A power law, or a flat part followed by one: slopes of straight and of broken lines in log-log.

Two segments are preferred to one when all of these hold:

- F = (RSS of the line - RSS of the broken line) / 2 / s^2, s^2 the variance of the points' own means over launches,
  exceeds its quantile at 1 - 1 % / (places where a break can be): a break was searched for (Bonferroni);
- the slope rises by at least 0.25 at the break;
- the left slope is at most half of the right one: flat or shallow, as of a cost that does not grow with the work.

The exponent is then the slope of the points from the break on. A continuous broken line of least squares has, where its
break lies between two points, exactly that slope (Hudson 1966), so that the interval, which takes only these
points, covers the break's own uncertainty as well.
"""

import functools
from dataclasses import dataclass

import numpy as np
from scipy.special import fdtri

from mixprof.reports.statistics import Points, contrast, half_width

LEVEL = 0.01
LEAST_RISE = 0.25
SHALLOW = 0.5
FLOOR = 0.002  # of the standard error of a log, when it is judged what deviates: a count has none
STEPS = 16  # places between two neighbouring points at which a break is tried
LEAST_PLACES = 4  # for a break: two on either side


@dataclass(frozen=True)
class Fit:
    """Exponent with its 95 % interval. Arrays (...); what is missing is NaN."""

    slope: np.ndarray
    low: np.ndarray
    high: np.ndarray
    breakpoint: np.ndarray  # in log units like the places; NaN for a single segment
    left_slope: np.ndarray  # before the break
    curved: np.ndarray  # whether the points used deviate from their line by more than their noise
    used: np.ndarray  # (..., n): the points that the slope was taken from


def fit(places: np.ndarray, points: Points) -> Fit:
    """Fit logs against log places, sorted, of which at least two differ. places (n,), points (..., n)."""
    logs = points.logs
    breakpoint, left = _break(places, points) if len(np.unique(places)) >= LEAST_PLACES else _no_break(logs)
    used = ~(places < breakpoint[..., None] - 1e-9)
    weights = slope_weights(places, used)
    slope = (weights * logs).sum(axis=-1)
    half = half_width(*contrast(weights, points))
    curved = _misfit(places, points, used, slope)
    return Fit(slope, slope - half, slope + half, breakpoint, left, curved, used)


def slope_weights(places: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Return the weights of logs that give the slope of least squares over the points used. -> (..., n)."""
    center = (places * used).sum(axis=-1, keepdims=True) / used.sum(axis=-1, keepdims=True)
    away = (places - center) * used
    return away / (away**2).sum(axis=-1, keepdims=True)


def _no_break(logs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.full(logs.shape[:-1], np.nan), np.full(logs.shape[:-1], np.nan)


def _break(places: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
    """The break and the slope before it, (...); NaN where one segment is preferred."""
    bends = _bends(tuple(places))
    residuals = ((points.logs[..., None, None, :] @ bends.left_over)[..., 0, :] ** 2).sum(axis=-1)  # (..., tried)
    best = residuals.argmin(axis=-1)
    left, rise = np.moveaxis((bends.solutions[best] @ points.logs[..., None])[..., 1:, 0], -1, 0)
    gain = ((points.logs @ bends.line_left_over) ** 2).sum(axis=-1) - residuals.min(axis=-1)
    noise, freedom = _noise(points)
    with np.errstate(invalid="ignore"):
        preferred = gain / 2 / noise > fdtri(2, freedom, 1 - LEVEL / bends.gaps)
        preferred &= (rise >= LEAST_RISE) & (left <= SHALLOW * (left + rise))
    return np.where(preferred, bends.tried[best], np.nan), np.where(preferred, left, np.nan)


@dataclass(frozen=True)
class _Bends:
    """Least squares for a break at each of the places tried, which depend on the points' places alone."""

    gaps: int  # between two neighbouring points, with two points or more on either side
    tried: np.ndarray  # (tried,)
    solutions: np.ndarray  # (tried, 3, n): level, left slope and rise
    left_over: np.ndarray  # (tried, n, n): what makes residuals of logs
    line_left_over: np.ndarray  # (n, n): the same for a straight line


@functools.lru_cache(maxsize=256)
def _bends(places: tuple[float, ...]) -> _Bends:
    along = np.array(places)
    distinct = np.unique(along)
    gaps = len(distinct) - 3
    tried = np.interp(np.arange(gaps * STEPS + 1) / STEPS + 1, np.arange(len(distinct)), distinct)
    line = np.stack([np.ones_like(along), along], axis=-1)
    hinged = [np.column_stack([line, np.maximum(along - where, 0)]) for where in tried]
    left_over = np.stack([_residual_maker(design) for design in hinged])
    return _Bends(gaps, tried, np.stack([np.linalg.pinv(d) for d in hinged]), left_over, _residual_maker(line))


def _residual_maker(design: np.ndarray) -> np.ndarray:
    """(n, columns) -> (n, n), symmetric."""
    return np.eye(len(design)) - design @ np.linalg.pinv(design)


def _noise(points: Points) -> tuple[np.ndarray, np.ndarray]:
    """The variance of a point's mean, pooled over the points, and its degrees of freedom."""
    return np.maximum((points.errors**2).mean(axis=-1), FLOOR**2), points.freedoms.sum(axis=-1)


def _misfit(places: np.ndarray, points: Points, used: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Whether the points used are no straight line: F of lack of fit over the variance between launches, at 1 %."""
    count = used.sum(axis=-1)
    level = ((points.logs - slope[..., None] * places) * used).sum(axis=-1) / count
    residuals = (points.logs - slope[..., None] * places - level[..., None]) * used
    spare = np.maximum(count - 2, 1)
    noise, freedom = _noise(points)
    with np.errstate(invalid="ignore"):
        misfit = (residuals**2).sum(axis=-1) / spare / noise > fdtri(spare, freedom, 1 - LEVEL)
    return misfit & (count > 2)
