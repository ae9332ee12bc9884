"""One view of a chart as a figure: a panel a lowering (and run), which share their axes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mixprof.reports.charts.spec import Chart, Trace, View, read
from mixprof.reports.charts.style import Styles, caption, columns_for, label_axes, legend, panel_grid
from mixprof.reports.charts.ticks import SMALL, log_ticks, measured_ticks, spread

WIDTH, HEIGHT = 2.35, 2.2  # of a panel, inches
AROUND, DECADE = 0.75, 0.5  # what is above and below it, and ten times as much along y, inches
ROOF: dict[str, Any] = {"color": "0.4", "linewidth": 1, "zorder": 1}


def draw(chart: Chart, view: View, cases: pd.DataFrame, styles: Styles) -> tuple[Figure, list[Axes]]:
    """The figure and its panels, in the order of the view's; without a legend, for which see `finish`."""
    columns = columns_for(len(view.panels), len({tuple(panel.names[-1:]) for panel in view.panels}))
    height = max(HEIGHT, AROUND + DECADE * _decades(view, cases))
    figure, axes = panel_grid(len(view.panels), columns, (WIDTH, height))
    for axis, scale in (("x", chart.x.scale), ("y", chart.y.scale)):
        axes[0].set(**{f"{axis}scale": scale})
    for panel, content in zip(axes, view.panels, strict=True):
        for trace in content.traces:
            _draw_trace(panel, trace, cases, styles)
        panel.set_title("\n".join(content.names))
        panel.margins(x=0 if chart.name == "roofline" else 0.08, y=0.1)
    log_ticks(axes, "y", height)
    _set_x_ticks(axes, chart, view, cases)
    for panel, content in zip(axes, view.panels, strict=True):
        _name_roofs(panel, [trace for trace in content.traces if trace.shape == "roof"], cases)
    label_axes(axes, columns, chart.x.title, chart.y.title)
    return figure, axes


def finish(figure: Figure, chart: Chart, view: View, styles: Styles, note: str = "") -> Figure:
    """Add the legend, the note and the title to what `draw` made."""
    legend(figure, figure.axes, styles, " ".join(filter(None, [view.note, note])))
    caption(figure, chart.title, view.label)
    return figure


def _draw_trace(panel: Axes, trace: Trace, cases: pd.DataFrame, styles: Styles) -> None:
    x, y = (trace.numbers(axis, cases) for axis in "xy")
    if trace.shape == "roof":
        panel.plot(x, y, **ROOF, linestyle="--" if trace.dashed else "-")
        return
    look = dict(styles[trace.name])
    if trace.shape == "markers":
        look |= {"linestyle": "none", "alpha": 0.8}
    spread = np.abs([trace.numbers(end, cases) - y for end in ("low", "high")]) if trace.low else None
    panel.errorbar(x, y, yerr=spread, label=trace.name, capsize=2, elinewidth=0.8, **look)


def _decades(view: View, cases: pd.DataFrame) -> float:
    """The powers of ten that a view spans along y."""
    values = np.concatenate([trace.numbers("y", cases) for panel in view.panels for trace in panel.traces])
    return float(np.ptp(np.log10(values[values > 0]))) if (values > 0).any() else 0.0


def _set_x_ticks(axes: list[Axes], chart: Chart, view: View, cases: pd.DataFrame) -> None:
    """Measured values, or round numbers along a logarithmic axis."""
    traces = [trace for panel in view.panels for trace in panel.traces]
    places = {
        float(place): str(name)
        for trace in traces
        if trace.ticks
        for place, name in zip(trace.numbers("x", cases), read(trace.ticks, trace.rows, cases), strict=True)
    }
    if places:
        measured_ticks(axes, "x", places, WIDTH)
    elif chart.x.scale == "log":
        log_ticks(axes, "x", WIDTH)
    else:
        axes[0].xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5]))


def _name_roofs(panel: Axes, roofs: list[Trace], cases: pd.DataFrame) -> None:
    """The name of a flat roof beside the panel, of a rising one along its lower end, where no case is."""
    low, high = np.log(panel.get_ylim())
    flat = []
    for roof in roofs:
        x, y = (roof.numbers(axis, cases) for axis in "xy")
        if y[0] == y[-1]:
            flat.append((roof.name, float((math.log(y[0]) - low) / (high - low))))
            continue
        angle = math.degrees(math.atan2(y[-1] - y[0], x[-1] - x[0]))
        slope: dict[str, Any] = {"rotation": angle, "rotation_mode": "anchor", "transform_rotates_text": True}
        panel.text(x[0], y[0], f"   {roof.name}", fontsize=SMALL, color="0.3", va="bottom", **slope)
    heights = spread([height for _, height in flat], 2.9 * SMALL / 72 / (0.7 * HEIGHT))
    for (name, _), height in zip(flat, heights, strict=True):
        look: dict[str, Any] = {"fontsize": SMALL, "color": "0.3", "va": "center", "transform": panel.transAxes}
        panel.text(1.02, height, name.replace(" ", "\n", 1), **look)
