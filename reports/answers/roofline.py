"""The roofline of a run: what each case reached, under the roofs that were measured on the same device."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mixprof.reports.answers.slices import in_words, lowering_order
from mixprof.reports.charts.style import caption, columns_for, grow, label_axes, model_styles, panel_grid, plain_ticks
from mixprof.reports.frame import ANCHOR
from mixprof.reports.text.markdown import number, table

GIGA = 1e9
SAID = (
    "Attainable is the longer of arithmetic at the roof of its unit (matrix products at that of a matrix product, "
    "depth-wise and other convolutions with few channels a group at that of vector multiply-adds) and of the least "
    "bytes (operands and results of every operator that multiplies, each once) at the rate of a copy beyond any cache. "
    "What fits a cache, or is fused, may exceed it."
)


def rooflines(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of a frame that have a place under a roof."""
    known = frame[["attainable_share", "intensity", "latency_ms"]].notna().all(axis=1)
    return frame[known & (frame["status"] == "ok") & (frame["model"] != ANCHOR)]


def draw(frame: pd.DataFrame) -> Figure | None:
    """FLOP/s against FLOPs per byte, a panel per lowering (device, dtype, run); None where no peaks were measured.

    The roofs are this device's: bandwidth, matrix product, vector multiply-add.
    """
    rows = rooflines(frame)
    if rows.empty:
        return None
    styles = model_styles(frame)
    panels: list[tuple[Any, pd.DataFrame]] = list(rows.groupby(["run", "device", "dtype", "lowering"]))
    panels.sort(key=lambda panel: (panel[0][:3], lowering_order(panel[0][3])))
    columns = columns_for(len(panels), rows["lowering"].nunique())
    figure, axes = panel_grid(len(panels), columns, 2.6, 2.3)
    for panel, (names, part) in zip(axes, panels, strict=True):
        _draw_panel(panel, part, styles)
        several = [str(name) for name, column in zip(names[:3], ("run", "device", "dtype"), strict=True)
                   if rows[column].nunique() > 1]  # fmt: skip
        panel.set_title("\n".join([*several, names[3]]))
    _decades(axes[0])
    label_axes(axes, columns, "FLOPs per byte", "GFLOP/s")
    _legend(figure, axes, styles)
    caption(
        figure,
        "Roofline",
        "measured roofs: a copy beyond any cache, matrix product (solid), vector (dashed); networks hollow",
    )
    return figure


def _draw_panel(panel: Axes, rows: pd.DataFrame, styles: dict[str, dict[str, Any]]) -> None:
    panel.set_xscale("log")
    panel.set_yscale("log")
    speed = rows["flops"].astype(float) / (rows["latency_ms"] / 1000) / GIGA
    for model, part in rows.groupby("model"):
        look = {name: styles[str(model)][name] for name in ("color", "marker")}
        look["fillstyle"] = "full" if part["kind"].iloc[0] == "mixer" else "none"
        panel.plot(part["intensity"], speed[part.index], linestyle="none", label=model, alpha=0.8, **look)
    first = rows.iloc[0]
    across = np.geomspace(rows["intensity"].min() / 2, rows["intensity"].max() * 2, 100)
    for roof, line in (("matrix", "-"), ("vector", "--")):
        top = first[f"{roof}_flops_per_s"] / GIGA
        panel.plot(across, np.minimum(across * first["copy_bytes_per_s"] / GIGA, top), color="0.4", ls=line, zorder=1)


def _decades(panel: Axes) -> None:
    """Powers of ten along both axes, which all panels share, written plainly."""
    for axis, (low, high) in ((panel.xaxis, panel.get_xlim()), (panel.yaxis, panel.get_ylim())):
        powers = [10.0**power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
        plain_ticks(axis, powers, [f"{power:,.10g}" for power in powers])


def _legend(figure: Figure, axes: list[Axes], styles: dict[str, Any]) -> None:
    handles = {str(line.get_label()): line for panel in axes for line in panel.lines if line.get_label() in styles}
    shown = [name for name in styles if name in handles]
    columns = max(1, int(figure.get_figwidth() / (0.5 + 0.063 * max(map(len, shown)))))
    grow(figure, -(-len(shown) // columns))
    figure.legend([handles[name] for name in shown], shown, loc="outside lower left", ncols=min(columns, len(shown)))


def roofline_table(frame: pd.DataFrame) -> list[str]:
    """Of each measured case its intensity, its bound and the share of what is attainable that it reached."""
    rows = rooflines(frame)
    if rows.empty:
        return []
    rows = rows.sort_values(["run", "lowering", "dtype", "model", "height", "width", "batch", "window", "channels"])
    several = rows["run"].nunique() > 1
    shares = rows["attainable_share"]
    bound = rows["bound"].value_counts()
    words = ", ".join(f"{count} bound by {name}" for name, count in bound.items())
    first = f"{len(rows)} cases: {words}; they reach {shares.min():.0%} to {shares.max():.0%} of what is attainable. "
    roofs = roofs_in_words(frame)
    return ["## Roofline", first + SAID, roofs, table(_cells(row, several) for _, row in rows.iterrows())]


def roofs_in_words(frame: pd.DataFrame) -> str:
    """The measured peaks of each run, device and dtype, as a list."""
    names = ["run", "device", "dtype", "matrix_flops_per_s", "vector_flops_per_s", "copy_bytes_per_s"]
    rows = frame[names].dropna().drop_duplicates()
    lines = [
        f"- {row['run']}, {row['device']}, {row['dtype']}: matrix product {number(row['matrix_flops_per_s'], GIGA)}, "
        f"vector multiply-add {number(row['vector_flops_per_s'], GIGA)} GFLOP/s, "
        f"copy {number(row['copy_bytes_per_s'], GIGA)} GB/s (read and written)."
        for _, row in rows.iterrows()
    ]
    return "\n".join(lines)


def _cells(row: pd.Series, several_runs: bool) -> dict[str, str]:
    names = (*["run"] * several_runs, "lowering", "device", "dtype", "model", "batch")
    return {
        **{name: str(row[name]) for name in names},
        "at": in_words("resolution", row["resolution"]),
        "window": number(row["window"]),
        "FLOPs per byte": number(row["intensity"]),
        "GFLOP/s": number(row["flops"] / (row["latency_ms"] / 1000), GIGA),
        "vector MACs": f"{row['vector_macs'] / row['macs']:.1%}" if row["macs"] else "",
        "bound": str(row["bound"]),
        "attainable (ms)": number(row["attainable_ms"]),
        "of attainable": f"{row['attainable_share']:.0%}",
    }
