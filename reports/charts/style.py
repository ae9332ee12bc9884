"""How a figure looks: one style a model, plain numbers on log axes, panels on a grid, PNG and SVG files."""

from __future__ import annotations

import itertools
import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from mixprof.reports.frame import ANCHOR

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
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1)))
TICKS_PER_DECADE: tuple[Any, ...] = (
    (1,),
    (1, 3),
    (1, 2, 5),
    (1, 1.5, 2, 3, 5, 7),
    (1, 1.2, 1.4, 1.7, 2, 2.5, 3, 4, 5, 6, 8),
)
TICKS_PER_DECADE += (np.arange(1, 10, 0.5), np.arange(1, 10, 0.1))


def model_styles(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Colour, marker and line of each model, the same in every figure of a report."""
    models = frame[frame["model"] != ANCHOR]
    return {
        name: style
        for _, rows in models.groupby("kind")
        for name, style in zip(sorted(rows["model"].unique()), _styles(), strict=False)
    }


def styles_of(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """A style for each of these names, in their order."""
    return dict(zip(names, _styles(), strict=False))


def _styles() -> Iterable[dict[str, Any]]:
    """Endless; coprime periods, so that the first 770 differ in at least one way and neighbours in all three."""
    palette = seaborn.color_palette("colorblind")
    for number in itertools.count():
        yield {
            "color": palette[number % len(palette)],
            "marker": MARKERS[number % len(MARKERS)],
            "linestyle": LINES[number % len(LINES)],
        }


def panel_grid(count: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels of this size in inches, outside of pyplot; unused places stay empty.

    A panel has tick labels, and room for a label, below if it is the last of its
    column and at the left if it is the first of its row.
    """
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(max(columns * width, NARROWEST), rows * height), layout="constrained")
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
    return textwrap.fill(text, int(figure.get_figwidth() * LETTERS_PER_INCH))


def plain_ticks(axis: Any, values: Sequence[float], labels: Sequence[str]) -> None:
    """Ticks at exactly these places, written as given."""
    axis.set_major_locator(FixedLocator(list(values)))
    axis.set_major_formatter(FixedFormatter(list(labels)))
    axis.set_minor_locator(NullLocator())


def plain_log_ticks(axes: Axes) -> None:
    """Round numbers on the logarithmic y axis, at least four of them, written plainly: 0.5, not 5e-1."""
    low, high = axes.get_ylim()
    decades = 10.0 ** np.arange(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in TICKS_PER_DECADE:
        ticks = [t for t in np.outer(decades, steps).flatten() if low <= t <= high]
        if len(ticks) >= 4:
            break
    plain_ticks(axes.yaxis, ticks, [f"{tick:,.10g}" for tick in ticks])


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
