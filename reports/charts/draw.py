"""One view of a chart as a figure: a panel a lowering (and run), which share their axes."""

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mixprof.reports.charts.spec import Chart, Panel, Trace, View, read
from mixprof.reports.charts.style import Styles, caption, columns_for, label_axes, legend, panel_grid
from mixprof.reports.charts.ticks import SMALL, log_ticks, measured_ticks, named_ticks, spread

WIDTH, HEIGHT = 2.35, 2.2  # of a panel, inches
MARK, BAR, SPREAD = 0.35, 0.2, 0.6  # room for a mark or a bar, inches; share of a name's room for its marks
AROUND, DECADE = 0.75, 0.5  # what is above and below it, and ten times as much along y, inches
LYING = ("bar", "mark")
ROOF: dict[str, Any] = {"color": "0.4", "linewidth": 1, "zorder": 1}


def draw(chart: Chart, view: View, cases: pd.DataFrame, styles: Styles) -> tuple[Figure, list[Axes]]:
    """The figure and its panels, in the order of the view's; without a legend, for which see `finish`."""
    columns = columns_for(len(view.panels), len({tuple(panel.names[-1:]) for panel in view.panels}))
    names, bars = _categories(chart, view, cases), chart.y.scale == "linear"
    flush = bars or any(trace.shape == "roof" for panel in view.panels for trace in panel.traces)
    size = _size(chart, view, names, cases)
    figure, axes = panel_grid(len(view.panels), columns, size)
    axes[0].set_xscale("log" if chart.x.scale == "log" else "linear")
    axes[0].set_yscale(chart.y.scale)
    for panel, content in zip(axes, view.panels, strict=True):
        _draw_panel(panel, content, names, cases, styles)
        panel.margins(x=0 if flush else 0.08, y=0.02 if bars else 0.1)
    if bars:
        for panel in axes:
            panel.set_yticks(range(len(names)), names)
            panel.grid(False)
        axes[0].invert_yaxis()
        label_axes(axes, columns, chart.y.title, chart.x.title)
        return figure, axes
    if chart.y.measured:
        dots = [trace.numbers("y", cases) for panel in view.panels for trace in panel.traces if trace.ticks]
        measured_ticks(axes, "y", {float(place): f"{place:g}" for place in np.unique(np.concatenate(dots))}, size[1])
    else:
        log_ticks(axes, "y", size[1])
    _set_x_ticks(axes, chart, view, cases)
    for panel, content in zip(axes, view.panels, strict=True):
        _name_roofs(panel, [trace for trace in content.traces if trace.shape == "roof"], cases)
    label_axes(axes, columns, chart.x.title, chart.y.title)
    return figure, axes


def _size(chart: Chart, view: View, names: list[str], cases: pd.DataFrame) -> tuple[float, float]:
    """The width and height of a panel, inches: wide enough for its names or high enough for its bars and labels."""
    if chart.y.scale == "linear":
        return WIDTH, AROUND + BAR * len(names)
    width = AROUND + MARK * len(names) * max(len(panel.traces) for panel in view.panels)
    values = np.concatenate([trace.numbers("y", cases) for panel in view.panels for trace in panel.traces])
    decades = float(np.ptp(np.log10(values[values > 0]))) if (values > 0).any() else 0.0
    return max(WIDTH, width), max(HEIGHT, AROUND + DECADE * decades)


def finish(figure: Figure, chart: Chart, view: View, styles: Styles, note: str = "") -> Figure:
    """Add the legend, the note and the title to what `draw` made."""
    legend(figure, figure.axes, styles, " ".join(filter(None, [view.note, note])))
    caption(figure, chart.title, view.label)
    return figure


def _categories(chart: Chart, view: View, cases: pd.DataFrame) -> list[str]:
    """The names along x, if that is what there is along x."""
    if chart.x.scale != "category":
        return []
    traces = [trace for panel in view.panels for trace in panel.traces]
    return list(dict.fromkeys(name for trace in traces for name in read(trace.x, trace.rows, cases)))


def _draw_panel(panel: Axes, content: Panel, names: list[str], cases: pd.DataFrame, styles: Styles) -> None:
    panel.set_title("\n".join(content.names))
    left = np.zeros(len(names))
    for number, trace in enumerate(content.traces):
        if trace.shape in LYING:
            _draw_lying(
                panel, trace, [names.index(name) for name in read(trace.x, trace.rows, cases)], left, cases, styles
            )
            continue
        shift = SPREAD * ((number + 0.5) / len(content.traces) - 0.5)
        where = [names.index(name) + shift for name in read(trace.x, trace.rows, cases)] if names else None
        _draw_trace(panel, trace, where, cases, styles)


def _draw_lying(
    panel: Axes, trace: Trace, places: list[int], left: np.ndarray, cases: pd.DataFrame, styles: Styles
) -> None:
    """A bar behind those that end at `left`, which it moves; or a mark across them. With intervals, where known."""
    widths, look = np.nan_to_num(trace.numbers("y", cases)), styles[trace.name]
    ends = np.nan_to_num(np.abs([trace.numbers(end, cases) - widths for end in ("low", "high")])) if trace.low else None
    if trace.shape == "mark":
        panel.errorbar(widths, places, xerr=ends, label=trace.name, capsize=2, elinewidth=0.8, **look)
        return
    whiskers: Any = {"elinewidth": 0.8, "capsize": 1.5, "ecolor": "0.25"}
    panel.barh(places, widths, left=left[places], xerr=ends, error_kw=whiskers, label=trace.name, color=look["color"])
    left[places] += widths


def _draw_trace(panel: Axes, trace: Trace, where: list[float] | None, cases: pd.DataFrame, styles: Styles) -> None:
    x, y = where if where else trace.numbers("x", cases), trace.numbers("y", cases)
    if trace.shape == "roof":
        panel.plot(x, y, **ROOF, linestyle="--" if trace.dashed else "-")
        return
    look = dict(styles[trace.name])
    if trace.shape == "markers":
        look |= {"linestyle": "none", "alpha": 0.8}
    spread = np.abs([trace.numbers(end, cases) - y for end in ("low", "high")]) if trace.low else None
    panel.errorbar(x, y, yerr=spread, label=trace.name, capsize=2, elinewidth=0.8, **look)


def _set_x_ticks(axes: list[Axes], chart: Chart, view: View, cases: pd.DataFrame) -> None:
    """Names, measured values, or round numbers along a logarithmic axis."""
    traces = [trace for panel in view.panels for trace in panel.traces]
    places = {
        float(place): str(name)
        for trace in traces
        if trace.ticks
        for place, name in zip(trace.numbers("x", cases), read(trace.ticks, trace.rows, cases), strict=True)
    }
    if chart.x.scale == "category":
        named_ticks(axes, _categories(chart, view, cases))
    elif places:
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
