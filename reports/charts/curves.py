"""One quantity against one axis: a line a model, a panel a lowering (and run), logarithmic both ways."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mixprof.reports.answers.slices import Slice, lowering_order, places
from mixprof.reports.charts import slopes
from mixprof.reports.charts.style import (
    caption,
    columns_for,
    grow,
    label_axes,
    panel_grid,
    plain_log_ticks,
    plain_ticks,
    wrapped,
)

WIDTH, HEIGHT, LETTER = 2.35, 2.2, 0.063  # of a panel and of a letter, inches
INTERVALS = {
    "launches": "95 % t interval over launches",
    "within-launch": "95 % interval within one launch, which says nothing of the next",
}


@dataclass(frozen=True)
class Quantity:
    """What is drawn. Counts hold for any status and every lowering; measurements for ok cases only."""

    name: str
    column: str
    title: str
    unit: str
    divisor: float
    measured: bool
    low: str | None = None  # columns of its 95 % interval
    high: str | None = None


QUANTITIES = (
    Quantity("latency", "latency_ms", "Latency", "latency (ms)", 1, True, "latency_low_ms", "latency_high_ms"),
    Quantity("memory", "allocator_peak_bytes", "Peak memory", "allocator peak (MiB)", 2**20, True),
    Quantity("flops", "flops", "FLOPs", "GFLOPs per forward", 1e9, False),
)
AXES = {
    "resolution": {"mixer": "feature map side (positions)", "network": "image side (pixels)"},
    "batch": {"mixer": "batch (maps)", "network": "batch (images)"},
    "window": dict.fromkeys(("mixer", "network"), "window or kernel side"),
}


def draw(chosen: Slice, kind: str, axis: str, quantity: Quantity, styles: dict[str, dict[str, Any]]) -> Figure | None:
    """The figure, or None when it would show fewer than two places along the axis."""
    rows = shown(chosen.rows, quantity)
    if len(set(places(rows, axis))) < 2:
        return None
    facets = ["run", "lowering"] if quantity.measured else ["run"]
    panels: list[tuple[Any, pd.DataFrame]] = list(rows.groupby(facets))
    panels.sort(key=lambda panel: (panel[0][0], *map(lowering_order, panel[0][1:])))
    columns = columns_for(len(panels), rows["lowering"].nunique() if quantity.measured else 1)
    figure, axes = panel_grid(len(panels), columns, WIDTH, HEIGHT)
    for panel, (names, part) in zip(axes, panels, strict=True):
        _draw_panel(panel, part, axis, quantity, styles)
        panel.set_title("\n".join(names if rows["run"].nunique() > 1 else names[1:]))
    label_axes(axes, columns, AXES[axis][kind], quantity.unit)
    _ticks(axes, rows, axis)
    for panel, (_, part) in zip(axes, panels, strict=True):
        slopes.write(panel, part, axis, quantity.name, quantity.divisor, styles)
    legend(figure, axes, styles, _note(chosen.rows, rows, quantity))
    caption(figure, f"{quantity.title} against {axis}, {kind}s", chosen.label())
    return figure


def shown(rows: pd.DataFrame, quantity: Quantity) -> pd.DataFrame:
    """The rows that have the quantity: measurements of ok cases, or counts, which are the same under every lowering."""
    rows = rows[rows[quantity.column] > 0]  # neither missing nor without a place on a logarithmic axis
    if quantity.measured:
        return rows[rows["status"] == "ok"]
    return rows.drop_duplicates(["run", "model", "resolution", "batch", "window"])


def _draw_panel(panel: Axes, rows: pd.DataFrame, axis: str, quantity: Quantity, styles: dict[str, Any]) -> None:
    panel.set_xscale("log")
    panel.set_yscale("log")
    for model, line in rows.groupby("model"):
        line = line.iloc[np.argsort(places(line, axis), kind="stable")]
        values = line[quantity.column].astype(float).to_numpy() / quantity.divisor
        spread = _error_bars(line, quantity) if quantity.low else None
        panel.errorbar(
            places(line, axis), values, yerr=spread, label=model, capsize=2, elinewidth=0.8, **styles[str(model)]
        )


def _error_bars(line: pd.DataFrame, quantity: Quantity) -> np.ndarray:
    """How far the interval reaches below and above, (2, points); no bar where there is no interval."""
    columns = (quantity.column, quantity.low, quantity.high)
    middle, low, high = (line[name].to_numpy(float) / quantity.divisor for name in columns)
    return np.stack([middle - low, high - middle])


def _ticks(axes: list[Axes], rows: pd.DataFrame, axis: str) -> None:
    """The measured values as ticks, slanted where they would not fit side by side."""
    named: Any = rows[axis].astype(str).groupby(places(rows, axis))
    labels = {place: " / ".join(sorted(set(names))) for place, names in named}
    where, lengths = np.log(list(labels)), np.array([len(label) for label in labels.values()])
    gaps = np.diff(where) / np.ptp(where) * 0.7 * WIDTH
    crowded = bool((gaps < LETTER * (1 + (lengths[:-1] + lengths[1:]) / 2)).any())
    slanted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
    for panel in axes:
        plain_ticks(panel.xaxis, list(labels), list(labels.values()))
        for label in panel.get_xticklabels():
            label.set(**slanted)
        panel.margins(x=0.08, y=0.1)
    plain_log_ticks(axes[0])


def legend(figure: Figure, axes: list[Axes], styles: dict[str, Any], note: str) -> None:
    """One legend below all panels, in the order of the styles, under the note as its title."""
    handles = {bars.get_label(): bars[0] for panel in axes for bars in panel.containers}
    shown = [name for name in styles if name in handles]
    entry = 0.67 + LETTER * max(map(len, shown))  # a line, its name and the gap to the next column
    columns = max(1, min(len(shown), int((figure.get_figwidth() + 0.22) / entry)))
    title = wrapped(figure, note)
    grow(figure, math.ceil(len(shown) / columns) + 1 + title.count("\n"))
    figure.legend(
        [handles[name] for name in shown],
        shown,
        loc="outside lower left",
        ncols=columns,
        handlelength=3.2,
        title=title,
        title_fontsize=7,
        alignment="left",
    )


def _note(asked: pd.DataFrame, shown: pd.DataFrame, quantity: Quantity) -> str:
    """What the bars are, what is missing and why, and which counts are lower bounds."""
    notes = []
    if quantity.column == "latency_ms":
        kinds = [words for name, words in INTERVALS.items() if (shown["interval"] == name).any()]
        notes += [f"Bars: {'; or '.join(kinds)}."] if kinds else []
    if quantity.measured:
        notes += [not_shown(asked, quantity.column)]
    inexact = shown[~shown["counts_exact"].fillna(True).astype(bool)]["model"].unique()
    if not quantity.measured and len(inexact):
        notes += [f"At least, some operations being uncounted: {', '.join(inexact)}."]
    return " ".join(filter(None, [*notes, slopes.NOTE]))


def not_shown(asked: pd.DataFrame, column: str) -> str:
    """ "2 cases not shown: 1 unsupported, 1 oom." """
    counts = asked.loc[asked["status"] != "ok", "status"].value_counts().to_dict()
    if unmeasured := int((asked[column].isna() & (asked["status"] == "ok")).sum()):
        counts["not measured"] = unmeasured
    total = sum(counts.values())
    reasons = ", ".join(f"{count} {status}" for status, count in counts.items())
    return f"{total} case{'s' * (total > 1)} not shown: {reasons}." if total else ""
