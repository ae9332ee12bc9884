"""Fitted exponents, drawn and written at the lines of a figure."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from mixprof.reports.answers import Answers
from mixprof.reports.answers.exponents import WHO
from mixprof.reports.answers.slices import FIXED
from mixprof.reports.charts.spec import Chart, Panel, Trace
from mixprof.reports.charts.style import Styles
from mixprof.reports.charts.ticks import SMALL, spread

NOTE = "At the lines: exponents, of the part drawn pale."
PALE: dict[str, Any] = {"alpha": 0.25, "linewidth": 4, "solid_capstyle": "butt", "zorder": 1}
LINE = 0.11  # inches from one label to the next


def write(axes: Axes, panel: Panel, chart: Chart, answers: Answers, styles: Styles) -> None:
    """Draw each line's fitted part behind it and write its exponent beside the panel. Call with final limits."""
    fits = answers.exponents
    fits = fits[(fits["metric"] == chart.metric) & (fits["axis"] == chart.axis)]
    by_line = {_key(row, chart.axis): row for row in fits.to_dict("records")}
    low, high = np.log(axes.get_ylim())
    ends, labels = [], []
    for trace in panel.traces:
        keys = (_key(answers.cases.loc[row].to_dict(), chart.axis) for row in trace.rows)
        fit = next((by_line[key] for key in keys if key in by_line), None)  # counts are of any lowering
        if fit is None:
            continue
        ends_of_line = np.array([fit["start"], fit["end"]])
        fitted = _fitted(trace, fit, answers.cases)
        colour = styles[trace.name]["color"]
        axes.plot(ends_of_line, fitted, color=colour, scalex=False, scaley=False, **PALE)
        ends.append(float((np.log(fitted[-1]) - low) / (high - low)))
        labels.append((f"{round(fit['slope'], 2) + 0.0:.2f}", colour))  # no "-0.00"
    height = axes.figure.get_figheight() / axes.get_subplotspec().get_gridspec().nrows  # type: ignore[union-attr]
    for place, (text, colour) in zip(spread(ends, LINE / (0.72 * height)), labels, strict=True):
        look: dict[str, Any] = {"color": colour, "fontsize": SMALL, "va": "center", "transform": axes.transAxes}
        axes.text(1.01, place, text, **look)


def _key(row: Mapping[Any, Any], axis: str) -> tuple[Any, ...]:
    """All settings of a line, missing ones as None."""
    return tuple(None if name == axis or pd.isna(row[name]) else row[name] for name in (*WHO, *FIXED))


def _fitted(trace: Trace, fit: Mapping[Any, Any], cases: pd.DataFrame) -> np.ndarray:
    """The fitted cost at both ends of the part that the exponent is of, in the unit of the figure. (2,)"""
    x, y = (trace.numbers(axis, cases) for axis in "xy")
    used = (x > fit["start"] * (1 - 1e-6)) & (x < fit["end"] * (1 + 1e-6))
    along, logs = np.log(x[used]), np.log(y[used])
    return np.asarray(np.exp(logs.mean() + fit["slope"] * (np.log([fit["start"], fit["end"]]) - along.mean())))
