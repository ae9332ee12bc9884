"""Testbed by setting: where convolution is faster than attention, and by how much."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mixprof.reports.answers.fleet import SETTING
from mixprof.reports.answers.ratios import Pair
from mixprof.reports.answers.slices import in_words
from mixprof.reports.charts.heatmaps import COLOURS, cell_text, ink
from mixprof.reports.charts.style import caption, panel_grid

CELL = (0.5, 0.34)  # inches
WIDEST = 40  # settings of a map


def draw(compared: pd.DataFrame, pair: Pair, step: str = "") -> Figure | None:
    """A line a testbed, a column a setting; None for one testbed. compared: the pair's ratios of one step."""
    rows = compared[compared["ratio"].notna()]
    runs = list(rows["run"].unique())
    if len(runs) < 2:
        return None
    varying = [name for name in SETTING if rows[name].nunique(dropna=False) > 1]
    labels = rows.apply(
        lambda row: " ".join(in_words(name, row[name]) for name in varying if not pd.isna(row[name])), axis=1
    )
    columns = list(labels.unique())[:WIDEST]
    figure, (panel, *_) = panel_grid(1, 1, (2 + CELL[0] * len(columns), 2 + CELL[1] * len(runs)))
    rows = rows.assign(setting=labels)[labels.isin(columns)]
    table = rows.pivot(index="run", columns="setting", values="ratio").reindex(index=runs, columns=columns)
    reach = max(float(np.abs(np.log2(rows["ratio"])).max()), 1.0)
    image = panel.imshow(np.log2(table.to_numpy(float)), cmap=COLOURS, vmin=-reach, vmax=reach, aspect="auto")
    panel.set_facecolor("0.92")
    panel.grid(False)
    panel.set_xticks(range(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor")
    panel.set_yticks(range(len(runs)), runs)
    for _, row in rows.iterrows():
        place = columns.index(row["setting"]), runs.index(row["run"])
        panel.text(*place, cell_text(row), ha="center", va="center", fontsize=7, color=ink(image, row["ratio"]))
    left = f"; the first {WIDEST} of {labels.nunique()} settings" if labels.nunique() > WIDEST else ""
    note = f"above 1 convolution is faster, (undecided) in brackets{left}"
    caption(figure, f"Latency of {pair.attention} over {pair.convolution}, by testbed{step}", note)
    return figure
