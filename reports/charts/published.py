"""Measured throughput beside the accuracy that others published."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mixprof.reports.answers.slices import best_setting, lowering_order
from mixprof.reports.charts.curves import legend
from mixprof.reports.charts.style import caption, columns_for, label_axes, panel_grid, plain_log_ticks

TOP1_PERCENT = {  # ImageNet-1K, trained and tested at 224x224, one crop
    "swin_t": 81.3,  # Liu et al., "Swin Transformer", ICCV 2021, table 1a
    "swin_s": 83.0,
    "swin_b": 83.5,
    "dwnet_t": 81.2,  # Han et al., ICLR 2022 (arXiv 2106.04263), table 2
    "dwnet_b": 83.2,
    "dynamic_dwnet_t": 81.8,
    "dynamic_dwnet_b": 83.2,
}
NOTE = "Accuracy as published by the Swin and DWNet papers, not measured here."


def with_accuracy(frame: pd.DataFrame) -> pd.DataFrame:
    """`top1_percent`, and the bounds of the throughput, `images_per_s_low` and `_high`, for each row of the frame.

    The accuracy is that of the published network alone: 224x224, window 7, no option changed.
    """
    as_published = (frame["height"] == 224) & (frame["width"] == 224) & (frame["window"] == 7)
    top1 = frame["model"].map(TOP1_PERCENT).astype(float).where(as_published.fillna(False).astype(bool))
    images = 1000 * frame["batch"].astype(float)
    bounds = {
        "images_per_s_low": images / frame["latency_high_ms"],
        "images_per_s_high": images / frame["latency_low_ms"].where(frame["latency_low_ms"] > 0),
    }
    return pd.DataFrame({"top1_percent": top1, **bounds}, index=frame.index)


def draw(frame: pd.DataFrame, styles: dict[str, dict[str, Any]]) -> Figure | None:
    """Images per second against published top-1, a panel a lowering (and run); None where no such network was timed."""
    rows = frame.join(with_accuracy(frame))
    chosen = best_setting(rows[rows["top1_percent"].notna() & rows["images_per_s"].notna()])
    if chosen is None:
        return None
    panels: list[tuple[Any, pd.DataFrame]] = list(chosen.rows.groupby(["run", "lowering"]))
    panels.sort(key=lambda panel: (panel[0][0], lowering_order(panel[0][1])))
    least, most = chosen.rows["top1_percent"].min(), chosen.rows["top1_percent"].max()
    columns = columns_for(len(panels), chosen.rows["lowering"].nunique())
    figure, axes = panel_grid(len(panels), columns, 2.6, 2.2)
    for panel, (names, part) in zip(axes, panels, strict=True):
        panel.set_yscale("log")
        for _, row in part.iterrows():
            middle, low, high = (row[f"images_per_s{end}"] for end in ("", "_low", "_high"))
            spread, look = [[middle - low], [high - middle]], {**styles[row["model"]], "linestyle": "none"}
            panel.errorbar([row["top1_percent"]], [middle], yerr=spread, label=row["model"], capsize=2, **look)
        panel.set_title("\n".join(names if chosen.rows["run"].nunique() > 1 else names[1:]))
        panel.set_xlim(least - 0.5, most + 0.5)
        panel.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5]))
        panel.margins(y=0.15)
    plain_log_ticks(axes[0])
    label_axes(axes, columns, "top-1 accuracy (%)", "images per second")
    legend(figure, axes, styles, NOTE)
    caption(figure, "Throughput against published accuracy", chosen.label())
    return figure
