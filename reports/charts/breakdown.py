"""Where time, MACs and bytes go: stacked bars by role."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import seaborn
from matplotlib.figure import Figure

from mixprof.reports.answers import Answers
from mixprof.reports.answers.breakdown import AMOUNTS, SETTING
from mixprof.reports.answers.slices import in_words
from mixprof.reports.charts.spec import Axis, Chart, Panel, Trace, View
from mixprof.reports.charts.style import caption, grow, panel_grid
from mixprof.reports.frame import ROLES

MOST_BARS = 16


def breakdown(answers: Answers) -> Iterator[Chart]:
    """Shares of time, MACs and bytes by role, a bar a stage; one view for each case that was broken down."""
    groups = answers.breakdown.groupby(SETTING, dropna=False, sort=False)
    views = [
        View(_label(rows.iloc[0]), _panels(rows), "Operator by operator, in a launch of its own.") for _, rows in groups
    ]
    if views:
        x, y = Axis("stage", "category"), Axis("share of the forward (%)", "linear")
        yield Chart("breakdown", "Where a forward's time, MACs and bytes go", x, y, views, static=False)


def _label(row: pd.Series) -> str:
    names = ("model", "lowering", "resolution", "batch", "window")
    return ", ".join(in_words(name, row[name]) for name in names if not pd.isna(row[name]))


def _panels(rows: pd.DataFrame) -> list[Panel]:
    stage = rows["stage"].astype(float).fillna(float("inf"))
    names = {place: "outside" if place == float("inf") else f"stage {place:g}" for place in sorted(set(stage))}
    panels = []
    for column, title in AMOUNTS.items():
        amounts = rows.assign(stage=stage, amount=rows[column].astype(float)).pivot_table(
            index="stage", columns="role", values="amount", aggfunc="sum", dropna=False
        )
        shares = 100 * amounts.fillna(0.0) / (amounts.sum().sum() or 1)
        traces = [
            Trace(role, list(names.values()), shares[role].reindex(list(names)).tolist(), shape="bar")
            for role in dict.fromkeys(rows["role"])
        ]
        panels.append(Panel([title], traces))
    return panels


def draw(answers: Answers) -> Figure | None:
    """A bar for each stage of each case and a panel each for time, MACs and bytes; None where nothing was broken down.

    Networks come before mixers; where there are more bars than fit, the first of them are drawn.
    """
    rows = answers.breakdown
    if rows.empty:
        return None
    varying = [name for name in SETTING if name not in ("model", "channels") and rows[name].nunique() > 1]
    rows = rows.assign(bar=[_bar(row, varying) for row in rows.to_dict("records")], is_mixer=rows["channels"].notna())
    bars = list(dict.fromkeys(rows.sort_values(["is_mixer", "model", "resolution", "stage"], kind="stable")["bar"]))
    left_out, bars = len(bars) - MOST_BARS, bars[:MOST_BARS]
    figure, axes = panel_grid(3, 3, (2.3, 0.8 + 0.2 * len(bars)))
    for panel, (column, title) in zip(axes, AMOUNTS.items(), strict=True):
        _draw_bars(panel, _shares(rows, column).reindex(bars).fillna(0.0))
        panel.set_title(title)
        panel.set_xlabel("share of the bar")
    axes[0].invert_yaxis()
    grow(figure, 2)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=5)
    more = f"; {left_out} more bars are in results.csv" if left_out > 0 else ""
    caption(figure, "Where time, MACs and bytes go", f"eager operators in a launch of their own{more}")
    return figure


def _draw_bars(panel: Any, shares: pd.DataFrame) -> None:
    colours = dict(zip(ROLES, seaborn.color_palette("colorblind", len(ROLES)), strict=True))
    left = pd.Series(0.0, index=shares.index)
    for role in [role for role in ROLES if role in shares]:
        panel.barh(range(len(left)), shares[role], left=left, color=colours[role], label=role, height=0.8)
        left += shares[role]
    panel.set_yticks(range(len(left)), list(left.index))
    panel.grid(False)


def _bar(row: Mapping[Any, Any], varying: Sequence[str]) -> str:
    """The model, what varies of its case, and a network's stage."""
    words = [str(row["model"]), *(in_words(name, row[name]) for name in varying if not pd.isna(row[name]))]
    if pd.isna(row["channels"]):
        words.append("outside" if pd.isna(row["stage"]) else f"stage {int(row['stage'])}")
    return ", ".join(words)


def _shares(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Shares of each bar's sum, by role."""
    sums = rows.astype({column: float}).pivot_table(index="bar", columns="role", values=column, aggfunc="sum")
    return sums.div(sums.sum(axis=1).replace(0.0, float("nan")), axis=0)
