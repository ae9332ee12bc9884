"""Where two models swap places, over two axes at once: every setting measured, and the crossovers between them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mixprof.reports.answers import Answers
from mixprof.reports.answers.ratios import Pair, ratios
from mixprof.reports.answers.slices import HELD, in_words, places
from mixprof.reports.charts.curves import AXES
from mixprof.reports.charts.spec import panels
from mixprof.reports.charts.style import Styles, add_legend, caption, columns_for, label_axes, panel_grid
from mixprof.reports.charts.ticks import measured_ticks

WIDTH, HEIGHT = 2.5, 1.9  # of a panel, inches
OVER = (("resolution", "window"), ("resolution", "batch"), ("batch", "window"))
MOST = 6  # maps in a report, of the pairs that cross most often; the table of crossovers has all
UNDECIDED = "0.6"


def maps(answers: Answers, styles: Styles) -> Iterator[tuple[str, Figure]]:
    """A name and a figure for the pairs that swap places most often, over the axes they were measured on."""
    crossings = answers.crossovers
    pairs = Counter(tuple(sorted(names)) for names in zip(crossings["first"], crossings["second"], strict=True))
    drawn = (
        (f"crossovers_{'_'.join(axes)}_{first}_and_{second}", figure)
        for (first, second), _ in sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0]))
        for compared in [ratios(answers.cases, Pair(first, second, ""))]
        for axes in OVER
        if (figure := draw(compared, _of_pair(crossings, first, second), axes, styles))
    )
    yield from itertools.islice(drawn, MOST)


def _of_pair(crossings: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    both = (first, second)
    return crossings[crossings["first"].isin(both) & crossings["second"].isin(both)]


def draw(compared: pd.DataFrame, crossings: pd.DataFrame, axes: tuple[str, str], styles: Styles) -> Figure | None:
    """A panel a lowering (and run); None below two places along either axis, or where no two models cross.

    compared: their ratios, setting by setting. crossings: their rows of `crossovers`.
    """
    held = [name for name in HELD if name not in axes]
    groups = [rows for _, rows in compared[compared["ratio"].notna()].groupby(held, dropna=False)]
    candidates = [(rows, _marks(crossings, rows.iloc[0][held].to_dict(), axes)) for rows in groups]
    rows, marks = max(candidates, key=lambda group: (len(group[1]), len(group[0])), default=(compared, crossings))
    if marks.empty or any(rows[axis].nunique() < 2 for axis in axes):
        return None
    content = panels(rows)
    columns = columns_for(len(content), rows["lowering"].nunique())
    figure, drawn = panel_grid(len(content), columns, (WIDTH, HEIGHT))
    for panel, (names, part) in zip(drawn, content, strict=True):
        here = marks[(marks["run"] == part["run"].iloc[0]) & (marks["lowering"] == names[-1])]
        _draw_panel(panel, part, here, axes, styles)
        panel.set_title("\n".join(names))
    _ticks(drawn, rows, axes)
    kind = rows["kind"].iloc[0]
    label_axes(drawn, columns, AXES[axes[0]][kind], AXES[axes[1]][kind])
    models = sorted({*marks["first"], *marks["second"]})
    _legend(figure, models, styles, bool((rows["faster"] == "undecided").any()))
    fixed = {name: rows[name].iloc[0] for name in held}
    words = ", ".join(in_words(str(name), value) for name, value in fixed.items() if not pd.isna(value))
    caption(figure, f"Where {models[0]} and {models[1]} swap places", words)
    return figure


def _ticks(drawn: list[Axes], rows: pd.DataFrame, axes: tuple[str, str]) -> None:
    for axis, side, length in zip(axes, "xy", (WIDTH, HEIGHT), strict=True):
        measured_ticks(drawn, side, dict(zip(places(rows, axis), rows[axis].astype(str), strict=True)), length)


def _marks(crossings: pd.DataFrame, fixed: dict[str, Any], axes: tuple[str, str]) -> pd.DataFrame:
    """The crossovers along either axis at the fixed settings of a map."""
    rows = crossings[crossings["axis"].isin(axes)]
    for name, value in fixed.items():
        rows = rows[rows[name].isna() if pd.isna(value) else (rows[name] == value).fillna(False).astype(bool)]
    return rows


def _draw_panel(panel: Axes, rows: pd.DataFrame, marks: pd.DataFrame, axes: tuple[str, str], styles: Styles) -> None:
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.grid(False)
    for faster, part in rows.groupby(rows["faster"].where(rows["faster"].notna(), "undecided")):
        undecided = faster == "undecided"
        look: dict[str, Any] = {"s": 28, "edgecolors": UNDECIDED if undecided else "none"}
        colour = "none" if undecided else styles[str(faster)]["color"]
        panel.scatter(places(part, axes[0]), places(part, axes[1]), facecolors=colour, **look)
    for _, mark in marks.iterrows():
        along = axes.index(mark["axis"])
        other = places(pd.DataFrame([_placed(mark)]), axes[1 - along])[0]
        spread = np.array([[mark["place"] - mark["low"]], [mark["high"] - mark["place"]]])
        where = (mark["place"], other) if along == 0 else (other, mark["place"])
        bars: dict[str, Any] = {"xerr" if along == 0 else "yerr": spread}
        panel.errorbar(*where, **bars, fmt="|" if along == 0 else "_", color="black", capsize=2, elinewidth=0.8)
    panel.margins(0.12)


def _placed(mark: pd.Series) -> dict[str, Any]:
    """The held settings of a crossover as a row that `places` can read; its resolution as height and width."""
    side = mark["resolution"]
    height, _, width = ("" if pd.isna(side) else str(side)).partition("x")
    sides = {"height": float(height or "nan"), "width": float(width or height or "nan")}
    return {"batch": mark["batch"], "window": mark["window"], **sides}


def _legend(figure: Figure, models: list[str], styles: Styles, undecided: bool) -> None:
    dot: dict[str, Any] = {"marker": "o", "linestyle": "none", "markersize": 5}
    entries = [Line2D([], [], color=styles[model]["color"], label=f"{model} is faster", **dot) for model in models]
    if undecided:
        entries.append(Line2D([], [], color=UNDECIDED, markerfacecolor="none", label="undecided", **dot))
    entries.append(Line2D([], [], color="black", marker="|", label="crossover, 95 % interval"))
    note = "Crossovers along either axis, interpolated between the settings measured."
    add_legend(figure, entries, [str(entry.get_label()) for entry in entries], 1, note)
