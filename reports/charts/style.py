"""How a figure looks: one style a model, plain numbers on log axes, panels on a grid, PNG and SVG files."""

import itertools
import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mixprof.data.case import ANCHORS
from mixprof.reports.answers.slices import lowering_order
from mixprof.reports.charts.ticks import LETTER
from mixprof.reports.frame import ROLES
from mixprof.reports.steps import KINDS, PARTS

DPI = 150
NARROWEST = 3.5  # inches: a column of a paper
LETTERS_PER_INCH = 13.5
LINE = 0.18  # inches
SETTINGS: Any = {
    "text.parse_math": False,  # a folder may be called "a$b$"
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "figure.titlesize": 9,
    "svg.hashsalt": "mixprof",  # equal figures are equal files
}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "p")
MAPS: dict[str, dict[str, Any]] = {
    "undecided": {"color": "0.6", "marker": "o", "linestyle": "-", "fillstyle": "none"},
    "whole step": {"color": "0.1", "marker": "D", "markersize": 3.5, "linestyle": "none", "fillstyle": "none"},
    "crossover": {"color": "0.4", "marker": "P", "markersize": 2.5, "linestyle": "-", "fillstyle": "full"},
}
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1)))
Styles = dict[str, dict[str, Any]]  # of each model or lowering by its name


def styles_of(cases: pd.DataFrame) -> Styles:
    """Colour, marker and line of each model, lowering and role, equal in every figure of a report.

    The markers of networks are hollow.
    """
    models = cases[~cases["model"].isin(ANCHORS)]
    lowerings = sorted(cases["lowering"].unique(), key=lowering_order)
    groups = [("", lowerings), ("", ROLES), ("", PARTS), ("", ("weights", "gradients", "optimizer state", *KINDS[3:]))]
    groups += [(str(kind), sorted(rows["model"].unique())) for kind, rows in models.groupby("kind")]
    return MAPS | {
        name: {**style, "fillstyle": "none" if kind == "network" else "full"}
        for kind, names in groups
        for name, style in zip(names, _styles(), strict=False)
    }


def _styles() -> Iterable[dict[str, Any]]:
    """Endless; coprime periods, so that the first 770 differ in at least one way and neighbours in all three."""
    palette = seaborn.color_palette("colorblind")
    for number in itertools.count():
        lists = {"color": palette, "marker": MARKERS, "linestyle": LINES}
        yield {name: values[number % len(values)] for name, values in lists.items()}


def panel_grid(count: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels of this width and height in inches, outside of pyplot; unused places stay empty.

    A panel has tick labels, and room for a label, below if it is the last of its
    column and at the left if it is the first of its row.
    """
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(max(columns * size[0], NARROWEST), rows * size[1]), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten())
    for spare in axes[count:]:
        spare.remove()
    for lowest in axes[max(count - columns, 0) : count]:
        lowest.tick_params(labelbottom=True)
    return figure, axes[:count]


def columns_for(panels: int, lowerings: int) -> int:
    """At most three abreast, which fits a page; four are two by two; runs stand below one another."""
    count = lowerings if lowerings < panels else panels
    return 2 if count == 4 else min(count, 3)


def label_axes(axes: Sequence[Axes], columns: int, below: str, left: str) -> None:
    """Name the x axis once a column and the y axis once a row."""
    for number, panel in enumerate(axes):
        panel.set_xlabel(below if number + columns >= len(axes) else "")
        panel.set_ylabel(left if number % columns == 0 else "")


def caption(figure: Figure, title: str, subtitle: str) -> None:
    """Title and subtitle above the panels, wrapped to the figure's width."""
    text = "\n".join([title, wrapped(figure, subtitle)])
    figure.suptitle(text, x=0.02, ha="left")
    grow(figure, 1 + text.count("\n"))


def grow(figure: Figure, lines: float) -> None:
    """Make room for lines of text above or below the panels, so that these keep their size."""
    figure.set_figheight(figure.get_figheight() + LINE * lines)


def wrapped(figure: Figure, text: str) -> str:
    """Text in lines that fit the figure; words with a number, as "window 7", stay on one."""
    tied = re.sub(r" (?=\d+(,|$))|(?<=\d) (?=channels)", "\u00a0", text)
    return textwrap.fill(tied, int(figure.get_figwidth() * LETTERS_PER_INCH)).replace("\u00a0", " ")


def legend(figure: Figure, axes: Iterable[Axes], styles: Styles, note: str) -> None:
    """One legend below all panels, for which the figure grows, in the order of the styles, under the note as title."""
    handles = {bars.get_label(): bars[0] for panel in axes for bars in panel.containers}
    shown = [name for name in styles if name in handles]
    entry = 0.67 + LETTER * max(map(len, shown))  # a line, its name and the gap to the next column
    columns = max(1, min(len(shown), int((figure.get_figwidth() + 0.22) / entry)))
    title = wrapped(figure, note)
    grow(figure, math.ceil(len(shown) / columns) + 1 + title.count("\n"))
    look: Any = {"loc": "outside lower left", "alignment": "left", "title_fontsize": 7, "handlelength": 3.2}
    figure.legend([handles[name] for name in shown], shown, ncols=columns, title=title, **look)


def file_stem(name: str) -> str:
    """Whatever a file's name had better not hold becomes a dash."""
    return re.sub(r"[^\w.]+", "-", name)


def save(figure: Figure, out: Path, name: str) -> list[Path]:
    """OUT/name.png and OUT/name.svg."""
    stem = file_stem(name)
    paths = [out / f"{stem}.png", out / f"{stem}.svg"]
    figure.savefig(paths[0], dpi=DPI, bbox_inches="tight")
    figure.savefig(paths[1], metadata={"Date": None}, bbox_inches="tight")
    return paths
