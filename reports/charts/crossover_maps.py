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

from mixprof.reports.answers.crossovers import crossovers
from mixprof.reports.answers.ratios import Pair, ratios
from mixprof.reports.answers.slices import HELD, in_words, lowering_order, places
from mixprof.reports.charts.curves import AXES
from mixprof.reports.charts.style import caption, columns_for, grow, label_axes, panel_grid, plain_ticks, wrapped

WIDTH, HEIGHT = 2.5, 1.9  # of a panel, inches
OVER = (("resolution", "window"), ("resolution", "batch"), ("batch", "window"))
MOST = 6  # maps in a report, of the pairs that cross most often; the table of crossovers has all
UNDECIDED = "0.6"


def maps(frame: pd.DataFrame, styles: dict[str, dict[str, Any]]) -> Iterator[tuple[str, Figure]]:
    """A name and a figure for the pairs that swap places most often, over the axes they were measured on."""
    found = crossovers(frame)
    pairs = Counter(tuple(sorted(names)) for names in zip(found["first"], found["second"], strict=True))
    drawn = (
        (f"crossovers_{'_'.join(axes)}_{first}_and_{second}", draw(frame, found, first, second, axes, styles))
        for (first, second), _ in sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0]))
        for axes in OVER
    )
    yield from itertools.islice(((name, figure) for name, figure in drawn if figure is not None), MOST)


def draw(
    frame: pd.DataFrame,
    found: pd.DataFrame,
    first: str,
    second: str,
    axes: tuple[str, str],
    styles: dict[str, dict[str, Any]],
) -> Figure | None:
    """A panel a lowering (and run); None where the two were not compared at two places of either axis, or never cross.

    found: what `crossovers` says of the frame.
    """
    compared = ratios(frame, Pair(first, second, ""))
    held = [name for name in HELD if name not in axes]
    groups = [rows for _, rows in compared[compared["ratio"].notna()].groupby(held, dropna=False)]
    both = found[found["first"].isin([first, second]) & found["second"].isin([first, second])]
    shown = [(rows, _marks(both, rows.iloc[0][held].to_dict(), axes)) for rows in groups]
    rows, marks = max(shown, key=lambda group: (len(group[1]), len(group[0])), default=(compared, both))
    if marks.empty or any(rows[axis].nunique() < 2 for axis in axes):
        return None
    fixed = {name: rows[name].iloc[0] for name in held}
    panels: list[tuple[Any, pd.DataFrame]] = list(rows.groupby(["run", "lowering"]))
    panels.sort(key=lambda panel: (panel[0][0], lowering_order(panel[0][1])))
    columns = columns_for(len(panels), rows["lowering"].nunique())
    figure, drawn = panel_grid(len(panels), columns, WIDTH, HEIGHT)
    for panel, (names, part) in zip(drawn, panels, strict=True):
        here = marks[(marks["run"] == names[0]) & (marks["lowering"] == names[1])]
        _draw_panel(panel, part, here, axes, styles)
        panel.set_title("\n".join(names if rows["run"].nunique() > 1 else names[1:]))
    for axis, side in zip(axes, ("xaxis", "yaxis"), strict=True):
        named = dict(sorted(zip(places(rows, axis), rows[axis].astype(str), strict=True)))
        for panel in drawn:
            plain_ticks(getattr(panel, side), list(named), list(named.values()))
    kind = rows["kind"].iloc[0]
    label_axes(drawn, columns, AXES[axes[0]][kind], AXES[axes[1]][kind])
    _legend(figure, (first, second), styles, bool((rows["faster"] == "undecided").any()))
    words = ", ".join(in_words(str(name), value) for name, value in fixed.items() if not pd.isna(value))
    caption(figure, f"Where {first} and {second} swap places", words)
    return figure


def _marks(found: pd.DataFrame, fixed: dict[str, Any], axes: tuple[str, str]) -> pd.DataFrame:
    """The crossovers along either axis, all else as it is held in a map."""
    rows = found[found["axis"].isin(axes)]
    for name, value in fixed.items():
        rows = rows[rows[name].isna() if pd.isna(value) else (rows[name] == value).fillna(False).astype(bool)]
    return rows


def _draw_panel(
    panel: Axes, rows: pd.DataFrame, marks: pd.DataFrame, axes: tuple[str, str], styles: dict[str, dict[str, Any]]
) -> None:
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


def _legend(figure: Figure, models: tuple[str, str], styles: dict[str, dict[str, Any]], undecided: bool) -> None:
    dot: dict[str, Any] = {"marker": "o", "linestyle": "none", "markersize": 5}
    entries = [Line2D([], [], color=styles[model]["color"], label=f"{model} is faster", **dot) for model in models]
    if undecided:
        entries.append(Line2D([], [], color=UNDECIDED, markerfacecolor="none", label="undecided", **dot))
    entries.append(Line2D([], [], color="black", marker="|", label="crossover, 95 % interval"))
    title = wrapped(figure, "Crossovers along either axis, interpolated between the settings measured.")
    grow(figure, len(entries) + 1 + title.count("\n"))
    figure.legend(handles=entries, loc="outside lower left", title=title, title_fontsize=7, alignment="left")
