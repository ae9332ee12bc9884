"""How cost grows: log-log slopes along resolution, batch and window, with intervals over launches."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mixprof.reports.answers.segments import Fit, fit, slope_weights
from mixprof.reports.answers.slices import FIXED, alike, places
from mixprof.reports.latencies import bound_by_enqueue, points, usable
from mixprof.reports.statistics import Points

METRICS = {  # what is measured, and the exact count that says how it should grow
    "latency": ("latency_ms", "flops"),
    "memory": ("allocator_peak_bytes", "predicted_peak_bytes"),
    "flops": ("flops", "flops"),
}
AXES = ("resolution", "batch", "window")
WHO = ["run", "kind", "model", "lowering"]
COLUMNS = [
    *("run", "kind", "model", "lowering", "device", "dtype", "layout", "mode", "step"),
    *("channels", "resolution", "batch", "window"),  # held fixed; missing for the axis itself
    *("metric", "axis", "slope", "low", "high"),  # 95 %
    "breakpoint",  # a side, a batch or a window: below it the cost is flat or shallow; missing without such a part
    "left_slope",  # below the breakpoint
    "curved",  # whether the slope changes along the points used by more than their noise
    "expected",  # the slope of the exact count over the same points
    *("start", "end", "points"),  # what the slope was taken from
    *("excluded", "host_bound"),  # rows left out; of these, on a GPU, the ones that took as long to enqueue as to run
    "bound",  # "memory" or "compute", where the frame has a column `bound` that says so of the points used
]
COUNTED = 1000.0  # degrees of freedom of what has no noise


@dataclass(frozen=True)
class Measured:
    """One metric of every row of a frame, (rows,): its points, which of them may enter a fit, and the exact count."""

    points: Points
    good: np.ndarray
    host_bound: np.ndarray  # enqueued in no less time than run
    counts: np.ndarray

    @classmethod
    def of(cls, frame: pd.DataFrame, metric: str) -> "Measured":
        column, counted = METRICS[metric]
        values, counts = (frame[name].to_numpy(dtype=float, na_value=np.nan) for name in (column, counted))
        good = usable(frame).to_numpy(dtype=bool) & (values > 0)
        slow = ((frame["status"] == "ok") & bound_by_enqueue(frame)).to_numpy(dtype=bool)
        if metric == "latency":
            return cls(points(frame), good, slow, counts)
        logs = np.log(np.where(values > 0, values, np.nan))
        exact = Points.independent(logs, np.zeros_like(logs), np.full_like(logs, COUNTED))
        return cls(exact, good, slow, counts)


@dataclass(frozen=True)
class Growth:
    """The fit of one line, the rows it was made of in the order of their places, and how many could not be used."""

    fit: Fit
    places: np.ndarray  # (n,), logarithms
    rows: np.ndarray  # (n,), positions in the frame
    excluded: int
    host_bound: int


def exponents(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per model, way of running it, setting, axis and metric with at least two places; COLUMNS."""
    metrics = {metric: Measured.of(frame, metric) for metric in METRICS}
    lines = []
    for axis in AXES:
        where = log_places(frame, axis)
        for fixed, rows in _lines(frame, axis):
            for metric, measured in metrics.items():
                line = growth(where, measured, rows)
                if line is not None:
                    lines.append({**fixed, "metric": metric, "axis": axis, **_cells(line, measured, frame)})
    return pd.DataFrame(lines, columns=COLUMNS)


def log_places(frame: pd.DataFrame, axis: str) -> np.ndarray:
    """Where rows stand along an axis, in logarithms; NaN for a model that does not have it. (rows,)"""
    if axis == "window":
        return np.log(frame["window"].to_numpy(dtype=float, na_value=np.nan))
    return np.log(places(frame, axis))


def _lines(frame: pd.DataFrame, axis: str) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Yield the fixed settings, and the positions of the rows that differ along the axis alone."""
    names = [*WHO, *(name for name in FIXED if name != axis)]
    positions = np.flatnonzero(frame[axis].notna())
    for fixed, rows in alike(frame.iloc[positions], names):
        if len(rows) > 1:
            yield fixed, positions[rows]


def growth(where: np.ndarray, measured: Measured, rows: np.ndarray) -> Growth | None:
    """How a metric grows over these rows of a frame, whose log places are `where`; None below two places."""
    good = rows[measured.good[rows]]
    good = good[np.argsort(where[good], kind="stable")]
    along = where[good]
    if len(np.unique(along)) < 2:
        return None
    fitted, host_bound = fit(along, measured.points.at(good)), int(measured.host_bound[rows].sum())
    return Growth(fitted, along, good, len(rows) - len(good), host_bound)


def _cells(line: Growth, measured: Measured, frame: pd.DataFrame) -> dict[str, Any]:
    fitted, used = line.fit, line.fit.used
    along = line.places[used]
    return {
        **{name: float(getattr(fitted, name)) for name in ("slope", "low", "high", "left_slope")},
        "breakpoint": float(np.exp(fitted.breakpoint)),
        "curved": bool(fitted.curved),
        "expected": _slope(along, measured.counts[line.rows[used]]),
        "start": round(float(np.exp(along[0])), 6),
        "end": round(float(np.exp(along[-1])), 6),
        "points": int(used.sum()),
        "excluded": line.excluded,
        "host_bound": line.host_bound,
        "bound": _bound(frame, line.rows[used]),
    }


def _slope(along: np.ndarray, counts: np.ndarray) -> float:
    """The slope of an exact count over log places; NaN where one of them has none."""
    if not (counts > 0).all():
        return float("nan")
    return float(slope_weights(along, np.ones(len(along))) @ np.log(counts))


def _bound(frame: pd.DataFrame, rows: np.ndarray) -> str | None:
    """Say what bounds all of these rows, if the frame has a column `bound` and they agree."""
    kinds = set(frame["bound"].iloc[rows].dropna()) if "bound" in frame else set()
    return str(kinds.pop()) if len(kinds) == 1 else None
