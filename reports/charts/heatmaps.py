"""How many times faster convolution is than attention, over two axes at once."""

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mixprof.reports.answers.ratios import Pair
from mixprof.reports.answers.slices import all_in_words, in_words, lowering_order, places
from mixprof.reports.charts.style import caption, columns_for, grow, label_axes, panel_grid, wrapped

FIXED = ["device", "dtype", "layout", "mode", "step", "channels"]
CELL = (0.42, 0.32)  # inches
COLOURS = "PuOr_r"  # diverging, told apart by colour-blind people
OTHER_AXIS = {"mixer": ("window", "batch"), "network": ("batch", "window")}  # the map's rows, and what splits panels


def draw(compared: pd.DataFrame, pair: Pair) -> Figure | None:
    """Resolution by window (mixers) or by batch (networks), a panel a lowering; None below two ratios.

    compared: the pair's ratios, setting by setting.
    """
    groups = [rows for _, rows in compared.groupby(FIXED, dropna=False)]
    rows = max(groups, key=lambda group: group["ratio"].notna().sum(), default=compared)
    if rows["ratio"].notna().sum() < 2:
        return None
    axis, split = OTHER_AXIS[rows["kind"].iloc[0]]
    panels = sorted(rows.groupby(["run", "lowering", split], dropna=False), key=_panel_order)
    by_size = np.argsort(places(rows, "resolution"), kind="stable")
    places_x, places_y = rows["resolution"].iloc[by_size].unique().tolist(), sorted(rows[axis].dropna().unique())
    abreast = columns_for(len(panels), rows["lowering"].nunique())
    wide = rows["ratio"].isna().any()  # room for a status
    size = 0.3 + (1.4 if wide else 1) * CELL[0] * len(places_x), 0.8 + CELL[1] * len(places_y)
    figure, axes = panel_grid(len(panels), abreast, size)
    figure.set_figwidth(figure.get_figwidth() + 1)  # the colour bar
    reach = max(float(np.abs(np.log2(rows["ratio"].dropna())).max()), 1.0)
    for panel, (names, part) in zip(axes, panels, strict=True):
        image = _draw_panel(panel, part, axis, places_x, places_y, reach)
        panel.set_title(_panel_title(names, rows, split))
    label_axes(axes, abreast, "resolution", axis)
    _colour_bar(figure, axes, image, int(4 * CELL[1] * len(places_y) * math.ceil(len(panels) / abreast)))
    fixed = all_in_words(rows.iloc[0][FIXED].to_dict())
    caption(figure, f"Latency of {pair.attention} over {pair.convolution}", f"{pair.fairness}; {fixed}")
    cells = len(panels) * len(places_x) * len(places_y)
    note = wrapped(figure, _note(rows, blank=cells > len(rows)))
    figure.supxlabel(note, x=0.02, ha="left", fontsize=7)
    grow(figure, 1 + note.count("\n"))
    return figure


def _panel_order(panel: tuple[Any, Any]) -> tuple[Any, ...]:
    run, lowering, split = panel[0]
    return run, lowering_order(lowering), 0 if pd.isna(split) else split


def _draw_panel(panel: Axes, rows: pd.DataFrame, axis: str, columns: list[str], lines: list[Any], reach: float) -> Any:
    table = rows.pivot(index=axis, columns="resolution", values="ratio").reindex(index=lines, columns=columns)
    image = panel.imshow(np.log2(table.to_numpy(float)), cmap=COLOURS, vmin=-reach, vmax=reach, aspect="auto")
    panel.set_facecolor("0.92")
    panel.grid(False)
    slant: Any = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if max(map(len, columns)) > 4 else {}
    panel.set_xticks(range(len(columns)), columns, **slant)
    panel.set_yticks(range(len(lines)), [str(line) for line in lines])
    for _, cell in rows.iterrows():
        place = columns.index(cell["resolution"]), lines.index(cell[axis])
        look: Any = {"fontsize": 6 if pd.isna(cell["ratio"]) else 7, "color": ink(image, cell["ratio"])}
        panel.text(*place, cell_text(cell), ha="center", va="center", **look)
    return image


def ink(image: Any, ratio: float) -> str:
    """Black, or white on a dark cell."""
    if pd.isna(ratio):
        return "black"
    red, green, blue, _ = image.to_rgba(math.log2(ratio))
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def cell_text(cell: pd.Series) -> str:
    """ "2.1", "(1.1)" when undecided, or the status that leaves no ratio."""
    if pd.isna(cell["ratio"]):
        return str(cell["status"])
    text = f"{cell['ratio']:.2f}" if cell["ratio"] < 10 else f"{cell['ratio']:.0f}"
    return f"({text})" if cell["faster"] == "undecided" else text


def _panel_title(names: tuple[Any, ...], rows: pd.DataFrame, split: str) -> str:
    run, lowering, value = names
    parts = [str(run)] if rows["run"].nunique() > 1 else []
    return "\n".join([*parts, str(lowering) if pd.isna(value) else f"{lowering}, {in_words(split, value)}"])


def _colour_bar(figure: Figure, axes: list[Axes], image: Any, room: int) -> None:
    """Powers of two beside the colours, of which `room` labels fit."""
    bar = figure.colorbar(image, ax=axes, shrink=0.9, aspect=12)
    reach = int(image.norm.vmax)
    step = math.ceil(reach / max(1, (room - 1) // 2))
    ticks = [power * step for power in range(-(reach // step), reach // step + 1)]
    bar.set_ticks(ticks, labels=[f"{2**tick}" if tick >= 0 else f"1/{2**-tick}" for tick in ticks])
    bar.set_label("ratio")
    bar.outline.set_visible(False)


def _note(rows: pd.DataFrame, blank: bool) -> str:
    notes = ["Above 1 convolution is faster, below 1 attention."]
    if (rows["faster"] == "undecided").any():
        notes.append("(In brackets): undecided, the 95 % interval of the ratio holds 1.")
    if (rows["interval"] == "within-launch").any():
        notes.append("Intervals are within one launch, which says nothing of the next.")
    missing = rows.loc[rows["ratio"].isna(), "status"].value_counts()
    if len(missing):
        reasons = ", ".join(f"{count} {status}" for status, count in missing.items())
        notes.append(f"{missing.sum()} without a ratio: {reasons}.")
    if blank:
        notes.append("Grey without a word: not run.")
    return " ".join(notes)
