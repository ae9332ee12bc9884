"""Where an eager forward's time, multiply-accumulates and bytes go: by role, stage by stage."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import seaborn
from matplotlib.figure import Figure

from mixprof.reports.answers.slices import in_words
from mixprof.reports.charts.style import caption, grow, panel_grid
from mixprof.reports.frame import ANCHOR, ROLES
from mixprof.reports.text.markdown import number, table

SETTING = ["run", "model", "lowering", "device", "dtype", "batch", "resolution", "window", "channels"]
SHARES = {"ms": "time", "macs": "MACs", "bytes": "bytes moved"}
MOST_BARS = 16
SAID = (
    "Measured operator by operator in a launch of its own, each waited for, so the sum is more than the latency. "
    "Reshape is window partition, shift, padding and other copies inside a mixer, generator the making of dynamic "
    "kernels, other mostly residual additions. MACs are those that really run; bytes are what operators read and write."
)


def parts(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per case, stage and role: SETTING, `stage` (missing outside of stages), `role`, `ms`, `macs`, `bytes`,
    `kernels`; for the cases that were broken down (`mixprof sweep --layers`, eager)."""
    known = frame[frame["breakdown"].notna() & (frame["model"] != ANCHOR)]
    rows = [
        {**{name: row[name] for name in SETTING}, **part}
        for row in known[[*SETTING, "breakdown"]].to_dict("records")
        for part in json.loads(row["breakdown"])
    ]
    return pd.DataFrame(rows, columns=[*SETTING, "stage", "role", "ms", "macs", "bytes", "kernels"])


def draw(frame: pd.DataFrame) -> Figure | None:
    """Stacked bars, a bar per stage of each case and a panel each for time, MACs and bytes; None where nothing was
    broken down. Networks before mixers; where there are more bars than fit, the first of them."""
    rows = parts(frame)
    if rows.empty:
        return None
    varying = [name for name in SETTING if name not in ("model", "channels") and rows[name].nunique() > 1]
    rows = rows.assign(bar=[_bar(row, varying) for row in rows.to_dict("records")], is_mixer=rows["channels"].notna())
    bars = list(dict.fromkeys(rows.sort_values(["is_mixer", "model", "resolution", "stage"], kind="stable")["bar"]))
    left_out, bars = len(bars) - MOST_BARS, bars[:MOST_BARS]
    roles = [role for role in ROLES if (rows["role"] == role).any()]
    colours = dict(zip(ROLES, seaborn.color_palette("colorblind", len(ROLES)), strict=True))
    figure, axes = panel_grid(3, 3, 2.3, 0.8 + 0.2 * len(bars))
    for panel, (column, title) in zip(axes, SHARES.items(), strict=True):
        shares = _shares(rows, column).reindex(index=bars, columns=roles).fillna(0.0)
        left = pd.Series(0.0, index=bars)
        for role in roles:
            panel.barh(range(len(bars)), shares[role], left=left, color=colours[role], label=role, height=0.8)
            left += shares[role]
        panel.set_title(title)
        panel.set_xlabel("share of the bar")
        panel.set_yticks(range(len(bars)), bars)
        panel.grid(False)
    axes[0].invert_yaxis()
    grow(figure, 2)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=5)
    more = f"; {left_out} more bars are in results.csv" if left_out > 0 else ""
    caption(figure, "Where time, MACs and bytes go", f"eager operators in a launch of their own{more}")
    return figure


def _bar(row: Mapping[Any, Any], varying: Sequence[str]) -> str:
    """The model, what varies of its case, and a network's stage."""
    words = [str(row["model"]), *(in_words(name, row[name]) for name in varying if not pd.isna(row[name]))]
    if pd.isna(row["channels"]):
        words.append("outside" if pd.isna(row["stage"]) else f"stage {int(row['stage'])}")
    return ", ".join(words)


def _shares(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Of each bar's sum, by role."""
    sums = rows.astype({column: float}).pivot_table(index="bar", columns="role", values=column, aggfunc="sum")
    return sums.div(sums.sum(axis=1).replace(0.0, float("nan")), axis=0)


def breakdown_table(frame: pd.DataFrame) -> list[str]:
    """Milliseconds of each role in each stage of each case."""
    rows = parts(frame)
    if rows.empty:
        return []
    cells = [
        {
            "case": ", ".join(in_words(name, case[name]) for name in ("model", "batch", "resolution")),
            "lowering": str(case["lowering"]),
            "window": number(case["window"]),
            "stage": number(stage),
            **{f"{role} (ms)": number(of_role["ms"].sum()) if len(of_role := part[part["role"] == role]) else ""
               for role in ROLES},
            "sum (ms)": number(part["ms"].sum()),
        }
        for values, whole in rows.groupby(SETTING, dropna=False, sort=False)
        for case in [dict(zip(SETTING, values, strict=True))]
        for stage, part in whole.groupby("stage", dropna=False)
    ]  # fmt: skip
    return ["## Where the time goes", SAID, table(cells)]
