"""Fitted exponents, drawn and written at the lines of a figure."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from mixprof.reports.answers.exponents import METRICS, Growth, growth_of

NOTE = "At the lines: exponents, of the part drawn pale."
PALE: dict[str, Any] = {"alpha": 0.25, "linewidth": 4, "solid_capstyle": "butt", "zorder": 1}
GAP = 0.07  # between two labels, as a share of the panel's height


def write(
    panel: Axes, rows: pd.DataFrame, axis: str, metric: str, divisor: float, styles: dict[str, dict[str, Any]]
) -> None:
    """Draw each model's fitted part behind its line and write the exponent beside the panel. Call with final limits."""
    low, high = np.log(panel.get_ylim())
    ends: list[float] = []
    labels: list[tuple[str, Any]] = []
    for model, line in rows.groupby("model"):
        found = growth_of(line, axis, metric)
        if found is None:
            continue
        fitted = _fitted(found, metric, line) / divisor
        colour = styles[str(model)]["color"]
        along = np.exp(found.places[found.fit.used][[0, -1]])
        panel.plot(along, fitted, color=colour, scalex=False, scaley=False, **PALE)
        ends.append(float((np.log(fitted[-1]) - low) / (high - low)))
        labels.append((f"{round(float(found.fit.slope), 2) + 0.0:.2f}", colour))  # no "-0.00"
    for height, (text, colour) in zip(spread(ends), labels, strict=True):
        look: dict[str, Any] = {"color": colour, "fontsize": 6.5, "va": "center", "transform": panel.transAxes}
        panel.text(1.01, height, text, **look)


def _fitted(found: Growth, metric: str, line: pd.DataFrame) -> np.ndarray:
    """The fitted cost at the first and the last point used, in the metric's own unit. (2,)"""
    used = found.fit.used
    logs = np.log(line[METRICS[metric][0]].to_numpy(dtype=float, na_value=np.nan)[found.rows[used]])
    along = found.places[used]
    return np.exp(logs.mean() + float(found.fit.slope) * (along[[0, -1]] - along.mean()))


def spread(heights: list[float], gap: float = GAP) -> np.ndarray:
    """Heights moved apart to at least the gap, in the order that they have, and no farther than needed from below."""
    order = np.argsort(heights, kind="stable")
    placed = np.array(heights, dtype=float)
    for lower, upper in itertools.pairwise(order):
        placed[upper] = max(placed[upper], placed[lower] + gap)
    return placed - max(0.0, placed.max(initial=0.0) - 1.0) / 2
