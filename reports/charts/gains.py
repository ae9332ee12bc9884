"""How many times as fast a case is as the same case elsewhere: under eager, or in the first of several runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mixprof.reports.answers.ratios import beside
from mixprof.reports.answers.slices import best_setting, lowering_order
from mixprof.reports.charts.curves import legend
from mixprof.reports.charts.style import caption, label_axes, panel_grid, plain_log_ticks, plain_ticks, styles_of
from mixprof.reports.frame import ANCHOR
from mixprof.reports.latencies import RATIO, ratio

IDENTITY = ["run", "model", "lowering", "device", "dtype", "layout", "mode", "batch", "height", "width", "window"]
IDENTITY += ["channels"]
GAIN = ("gain", "gain_low", "gain_high")
SPREAD = 0.6  # of the room between two models, for their lowerings


def gains(frame: pd.DataFrame, column: str, base: str) -> pd.DataFrame:
    """`gain`, `gain_low`, `gain_high` for each row of the frame: the latency of `base` over the row's own.

    The base of a row is the same case with `base` in `column`. Missing for the bases themselves and where either
    was not measured; the bounds are missing where either has no interval.
    """
    rows = frame.reset_index(drop=True)
    both = beside(rows[rows[column] == base], rows[rows[column] != base], [n for n in IDENTITY if n != column])
    found = pd.DataFrame(np.nan, index=rows.index, columns=list(GAIN))
    compared = ratio(rows, both["top"].to_numpy(), both["bottom"].to_numpy())
    found.loc[both["bottom"]] = compared[list(RATIO[:3])].to_numpy()
    return found.set_axis(frame.index)


def draw(frame: pd.DataFrame, kind: str) -> Figure | None:
    """Speed-up of each lowering over eager, a mark a model and lowering, at the setting with the most of them.

    None where no lowering but eager was measured beside it.
    """
    rows = frame[(frame["kind"] == kind) & (frame["model"] != ANCHOR)]
    rows = rows.join(gains(rows, "lowering", "eager"))
    chosen = best_setting(rows[rows["gain"].notna()])
    if chosen is None:
        return None
    models, lowerings = sorted(chosen.rows["model"].unique()), sorted(chosen.rows["lowering"].unique())
    styles = styles_of(sorted(lowerings, key=lowering_order))
    runs = list(chosen.rows.groupby("run"))
    figure, axes = panel_grid(len(runs), 1, max(3.5, 0.9 + 0.35 * len(models) * len(styles)), 2.4)
    for panel, (run, part) in zip(axes, runs, strict=True):
        _draw_panel(panel, part, models, styles)
        panel.set_title(str(run) if len(runs) > 1 else "")
        plain_ticks(panel.xaxis, range(len(models)), models)
        panel.set_xlim(-0.6, len(models) - 0.4)
        for label in panel.get_xticklabels():
            label.set(rotation=30, ha="right", rotation_mode="anchor")
    plain_log_ticks(axes[0])
    label_axes(axes, 1, "", "times as fast as eager")
    one_launch = (chosen.rows["interval"] == "within-launch").any()
    interval = "within one launch, which says nothing of the next" if one_launch else "over launches"
    legend(figure, axes, styles, f"Bars: 95 % interval {interval}. Above 1: faster than eager.")
    caption(figure, f"Speed-up of each lowering over eager, {kind}s", chosen.label())
    return figure


def _draw_panel(panel: Axes, rows: pd.DataFrame, models: list[str], styles: dict[str, dict[str, Any]]) -> None:
    panel.set_yscale("log")
    panel.axhline(1, color="0.4", linewidth=0.8)
    for number, (lowering, style) in enumerate(styles.items()):
        part = rows[rows["lowering"] == lowering].sort_values("model")
        shift = SPREAD * ((number + 0.5) / len(styles) - 0.5)
        middle, low, high = (part[name].to_numpy(float) for name in GAIN)
        where = [models.index(model) + shift for model in part["model"]]
        look = {**style, "linestyle": "none"}
        panel.errorbar(where, middle, yerr=np.stack([middle - low, high - middle]), label=lowering, capsize=2, **look)
