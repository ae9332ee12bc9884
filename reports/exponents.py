"""How cost grows: log-log slopes along resolution, batch and window, with intervals over launches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from reports.contrasts import Points, latencies, usable
from reports.segments import Fit, fit, slope_weights
from reports.slices import HELD, places

METRICS = {  # what is measured, and the exact count that says how it should grow
    "latency": ("latency_ms", "flops"),
    "memory": ("allocator_peak_bytes", "predicted_peak_bytes"),
    "flops": ("flops", "flops"),
}
AXES = ("resolution", "batch", "window")
WHO = ["run", "kind", "model", "lowering"]
COLUMNS = [
    *("run", "kind", "model", "lowering", "device", "dtype", "layout", "mode"),
    *("channels", "resolution", "batch", "window"),  # held fixed; missing for the axis itself
    *("metric", "axis", "slope", "low", "high"),  # 95 %
    "breakpoint",  # a side, a batch or a window: below it the cost is flat or shallow; missing without such a part
    "left_slope",  # below the breakpoint
    "curved",  # whether the slope changes along the points used by more than their noise
    "expected",  # the slope of the exact count over the same points
    *(
        "start",
        "end",
        "points",
        "excluded",
    ),  # what the slope was taken from; rows not ok, not measured or enqueue-bound
    "bound",  # "memory" or "compute", where the frame says so of the points used
]
COUNTED = 1000.0  # degrees of freedom of what has no noise


@dataclass(frozen=True)
class Growth:
    """The fit of one line, with its rows in the order of the places, and how many rows could not be used."""

    fit: Fit
    places: np.ndarray
    rows: pd.DataFrame
    excluded: int


def exponents(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per model, way of running it, setting, axis and metric with at least two places; COLUMNS."""
    found = [
        row
        for axis in AXES
        for held, line in lines(frame, axis)
        for metric in METRICS
        if (row := _row(held, line, axis, metric)) is not None
    ]
    return pd.DataFrame(found, columns=COLUMNS)


def lines(frame: pd.DataFrame, axis: str) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """What is held fixed, and the rows that differ along the axis alone."""
    names = [*WHO, *(name for name in HELD if name != axis)]
    rows = frame[frame[axis].notna()]
    values: Any
    for values, line in rows.groupby(names, dropna=False, sort=False):
        if len(line) > 1:
            yield {n: None if pd.isna(v) else v for n, v in zip(names, values, strict=True)}, line


def growth(line: pd.DataFrame, axis: str, column: str) -> Growth | None:
    """How one column grows along a line; None below two places."""
    good = line[usable(line) & (line[column] > 0).fillna(False)]
    where = np.log(places(good, axis))
    if len(np.unique(where)) < 2:
        return None
    order = np.argsort(where, kind="stable")
    good, where = good.iloc[order], where[order]
    return Growth(fit(where, _points(good, column)), where, good, len(line) - len(good))


def _points(rows: pd.DataFrame, column: str) -> Points:
    if column == "latency_ms":
        return latencies(rows)
    logs = np.log(rows[column].to_numpy(dtype=float))
    return Points(logs, np.zeros_like(logs), np.full_like(logs, COUNTED))


def _row(held: dict[str, Any], line: pd.DataFrame, axis: str, metric: str) -> dict[str, Any] | None:
    column, counted = METRICS[metric]
    found = growth(line, axis, column)
    if found is None:
        return None
    used, told = found.fit.used, found.fit
    along = np.exp(found.places[used])
    return {
        **held,
        "metric": metric,
        "axis": axis,
        **{name: float(getattr(told, name)) for name in ("slope", "low", "high", "left_slope")},
        "breakpoint": float(np.exp(told.breakpoint)),
        "curved": bool(told.curved),
        "expected": _expected(found, counted),
        "start": round(along[0], 6),
        "end": round(along[-1], 6),
        "points": int(used.sum()),
        "excluded": found.excluded,
        "bound": _bound(found.rows[used]),
    }


def _expected(found: Growth, column: str) -> float:
    """The slope of an exact count over the points that a fit used; NaN where one of them has none."""
    counts = found.rows[column].to_numpy(dtype=float, na_value=np.nan)
    used = found.fit.used
    if not (counts[used] > 0).all():
        return float("nan")
    return float(slope_weights(found.places[used], np.ones(used.sum())) @ np.log(counts[used]))


def _bound(rows: pd.DataFrame) -> str | None:
    """What bounds all of these rows, if the frame has a column `bound` and they agree."""
    kinds = set(rows["bound"].dropna()) if "bound" in rows else set()
    return str(kinds.pop()) if len(kinds) == 1 else None
