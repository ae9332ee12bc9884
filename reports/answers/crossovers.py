"""Where two models swap places: along resolution, batch or window, with an interval for the place.

A point is decided when the interval of the ratio there leaves out 1, at 5 % over all points of the line together
(Bonferroni, one-sided: a line on which the two are equally fast, or only touch, is called a crossover in fewer than
one of twenty). Two decided points of opposite sign, with none decided between them, hold a crossover: the zero
of the log ratio, interpolated in log-log between the points measured. Its interval is every place at which the
interval of that ratio, from its neighbours' errors, holds 1 (Fieller's argument, 1954).
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mixprof.data.case import ANCHORS
from mixprof.reports.answers.exponents import AXES, log_places
from mixprof.reports.answers.slices import FIXED, alike
from mixprof.reports.latencies import points, usable
from mixprof.reports.statistics import FIRST_OVER_SECOND, Points, contrast, half_width

FALSE_ALARMS = 0.05
TRIED = 2001  # places between two decided points at which the ratio is interpolated
TOGETHER = ["run", "kind", "lowering"]
COLUMNS = [
    "first",  # faster below the place
    "second",  # faster beyond it
    *("run", "kind", "lowering", "device", "dtype", "layout", "mode", "step"),
    *("channels", "resolution", "batch", "window"),  # held fixed; missing for the axis itself
    *("axis", "place", "low", "high"),  # 95 %
    *("below", "beyond"),  # the decided points on either side of it
    "interval",  # "launches" or "within-launch"
]


@dataclass(frozen=True)
class Crossing:
    """Where a ratio passes 1, in log units; `rises` if the ratio is below 1 before it."""

    place: float
    low: float
    high: float
    below: int  # the decided points on either side
    beyond: int
    rises: bool


@dataclass(frozen=True)
class Pairing:
    """Two models at the same places along one axis and in one setting; everything in the order of the places."""

    fixed: dict[str, Any]
    axis: str
    first: str
    second: str
    places: np.ndarray  # (n,), logarithms
    rows: np.ndarray  # (n, 2), positions in the frame, the first's and the second's
    points: Points  # (n, 2)


def crossovers(frame: pd.DataFrame) -> pd.DataFrame:
    """One row for each place at which two models of a run swap places; COLUMNS. Empty where none do."""
    rows = comparable(frame)
    crossed = [
        _row(pairing, crossing, rows)
        for pairing in pairings(rows)
        for crossing in crossings(pairing.places, pairing.points)
    ]
    return pd.DataFrame(crossed, columns=COLUMNS)


def comparable(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows whose latencies may be compared with one another's."""
    return frame[usable(frame) & frame["latency_ms"].notna() & ~frame["model"].isin(ANCHORS)].reset_index(drop=True)


def pairings(rows: pd.DataFrame) -> Iterator[Pairing]:
    """Every two models along every axis and setting that have two places or more in common. rows: `comparable`."""
    measured, models, windows = points(rows), rows["model"].to_numpy(), rows["window"].notna().to_numpy()
    for axis in AXES:
        where = log_places(rows, axis)
        for fixed, part in _settings(rows, axis):
            lines = [_line(where, line) for line in _by_model(models, part)]
            for one, other in itertools.combinations(lines, 2):
                if fixed["window"] is None or axis == "window" or windows[one[0]] or windows[other[0]]:
                    places, sides = _in_common(where, one, other)
                    if len(places) >= 2:
                        names = str(models[one[0]]), str(models[other[0]])
                        yield Pairing(fixed, axis, *names, places, sides, measured.at(sides))


def _settings(rows: pd.DataFrame, axis: str) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Yield the fixed settings, and the positions of the rows that differ in model and axis alone.

    A model without a window belongs to every window, save along the window itself.
    """
    names = [*TOGETHER, *(name for name in FIXED if name not in (axis, "window"))]
    windows = rows["window"].to_numpy(dtype=float, na_value=np.nan)
    for fixed, part in alike(rows, names):
        without = np.isnan(windows[part])
        if axis == "window":
            yield {**fixed, "window": None}, part[~without]
            continue
        for window in np.unique(windows[part][~without]):
            yield {**fixed, "window": int(window)}, part[without | (windows[part] == window)]
        yield {**fixed, "window": None}, part[without]


def _by_model(models: np.ndarray, part: np.ndarray) -> list[np.ndarray]:
    """The positions of each model's rows, the models by name."""
    return [part[models[part] == model] for model in sorted(set(models[part]))]


def _line(where: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """One row for each place, from the lowest up."""
    return rows[np.unique(where[rows], return_index=True)[1]]


def _in_common(where: np.ndarray, one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The places that two lines of rows share, (n,), and the rows of both there, (n, 2)."""
    common, left, right = np.intersect1d(where[one], where[other], assume_unique=True, return_indices=True)
    return common, np.stack([one[left], other[right]], axis=-1)


def decided(pairs: Points, chance: float) -> np.ndarray:
    """-1 where the first is faster, 1 where the second is, 0 where neither is by a one-sided test of this chance.

    pairs: (n, 2) -> (n,).
    """
    ratios = pairs.logs @ FIRST_OVER_SECOND
    with np.errstate(invalid="ignore"):
        apart = np.abs(ratios) > half_width(*contrast(FIRST_OVER_SECOND, pairs), chance)
    return np.where(apart, np.sign(ratios), 0).astype(int)


def crossings(where: np.ndarray, pairs: Points) -> list[Crossing]:
    """The places at which the ratio of each pair passes 1. where: (n,) logarithms of places, rising; pairs: (n, 2)."""
    ratios = pairs.logs @ FIRST_OVER_SECOND
    if not ratios.min() < 0 < ratios.max():
        return []
    signs = decided(pairs, 1 - FALSE_ALARMS / len(where))
    known = np.flatnonzero(signs).tolist()
    return [_between(where, pairs, i, j) for i, j in itertools.pairwise(known) if signs[i] != signs[j]]


def _between(where: np.ndarray, pairs: Points, below: int, beyond: int) -> Crossing:
    """The crossing between two decided points: the middle one, where the ratio passes 1 more than once."""
    tried = np.linspace(where[below], where[beyond], TRIED)
    shares = np.stack([np.interp(tried, where, one) for one in np.eye(len(where))], axis=-1)  # (TRIED, n)
    both, side = np.divmod(np.arange(2 * len(where)), 2)
    half = half_width(*contrast(shares[:, both] * FIRST_OVER_SECOND[side], pairs.at((both, side))))
    ratios = shares @ pairs.logs @ FIRST_OVER_SECOND
    passes = np.flatnonzero(np.sign(ratios[:-1]) != np.sign(ratios[1:]))
    at = passes[len(passes) // 2]
    root = tried[at] + (tried[1] - tried[0]) * ratios[at] / (ratios[at] - ratios[at + 1])
    inside = np.append(tried[np.abs(ratios) <= half], root)
    return Crossing(float(root), float(inside.min()), float(inside.max()), below, beyond, bool(ratios[0] < 0))


def _row(pairing: Pairing, crossing: Crossing, rows: pd.DataFrame) -> dict[str, Any]:
    names = (pairing.first, pairing.second) if crossing.rises else (pairing.second, pairing.first)
    ends = np.exp(pairing.places[[crossing.below, crossing.beyond]])
    within = (rows["interval"].iloc[pairing.rows.ravel()] == "within-launch").any()
    return {
        **pairing.fixed,
        "first": names[0],
        "second": names[1],
        "axis": pairing.axis,
        **{name: float(np.exp(getattr(crossing, name))) for name in ("place", "low", "high")},
        "below": round(float(ends[0]), 6),
        "beyond": round(float(ends[1]), 6),
        "interval": "within-launch" if within else "launches",
    }
