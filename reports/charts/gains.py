"""Speed-up of each lowering over eager, at the setting with the most of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mixprof.reports.answers import Answers
from mixprof.reports.answers.slices import best_setting, lowering_order
from mixprof.reports.charts.curves import intervals_in_words
from mixprof.reports.charts.style import Styles, caption, label_axes, legend, panel_grid, styles_of
from mixprof.reports.charts.ticks import log_ticks, slanted
from mixprof.reports.frame import ANCHOR

HEIGHT = 1.9
SPREAD = 0.6  # of the room between two models, for their lowerings


def draw(answers: Answers, kind: str) -> Figure | None:
    """A mark a model and lowering, a panel a run; None where no lowering but eager was measured beside it."""
    rows = answers.cases
    rows = rows[(rows["kind"] == kind) & (rows["model"] != ANCHOR) & rows["gain"].notna()]
    chosen = best_setting(rows)
    if chosen is None:
        return None
    models, lowerings = sorted(chosen.rows["model"].unique()), sorted(chosen.rows["lowering"].unique())
    styles = styles_of(sorted(lowerings, key=lowering_order))
    runs = list(chosen.rows.groupby("run"))
    figure, axes = panel_grid(len(runs), 1, (max(3.5, 0.9 + 0.35 * len(models) * len(styles)), HEIGHT))
    for panel, (run, part) in zip(axes, runs, strict=True):
        _draw_panel(panel, part, models, styles)
        panel.set_title(str(run) if len(runs) > 1 else "")
        panel.set_xticks(range(len(models)), models)
        panel.set_xlim(-0.6, len(models) - 0.4)
    slanted(axes, max(map(len, models)), 30)
    log_ticks(axes, "y", HEIGHT)
    label_axes(axes, 1, "", "times as fast as eager")
    legend(figure, axes, styles, f"{intervals_in_words(chosen.rows)} Above 1: faster than eager.".strip())
    caption(figure, f"Speed-up of each lowering over eager, {kind}s", chosen.label())
    return figure


def _draw_panel(panel: Axes, rows: pd.DataFrame, models: list[str], styles: Styles) -> None:
    panel.set_yscale("log")
    panel.axhline(1, color="0.4", linewidth=0.8)
    for number, (lowering, style) in enumerate(styles.items()):
        part = rows[rows["lowering"] == lowering].sort_values("model")
        shift = SPREAD * ((number + 0.5) / len(styles) - 0.5)
        middle, low, high = (part[f"gain{end}"].to_numpy(float) for end in ("", "_low", "_high"))
        where = [models.index(model) + shift for model in part["model"]]
        look = {**style, "linestyle": "none"}
        panel.errorbar(where, middle, yerr=np.stack([middle - low, high - middle]), label=lowering, capsize=2, **look)
    panel.margins(y=0.1)
