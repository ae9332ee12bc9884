"""Where time, MACs and bytes go: stacked bars by role."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from mixprof.reports.answers import Answers
from mixprof.reports.answers.breakdown import AMOUNTS, SETTING
from mixprof.reports.answers.slices import in_words
from mixprof.reports.charts.spec import Axis, Chart, Panel, Trace, View
from mixprof.reports.frame import ROLES

MOST_BARS = 16  # in a view


def breakdown(answers: Answers) -> Iterator[Chart]:
    """A bar for each stage of each case, a panel each for time, MACs and bytes; networks before mixers."""
    rows = answers.breakdown
    if rows.empty:
        return
    varying = [name for name in SETTING if name not in ("model", "channels") and rows[name].nunique() > 1]
    rows = rows.assign(bar=[_bar(row, varying) for row in rows.to_dict("records")], is_mixer=rows["channels"].notna())
    order = ["is_mixer", "model", "resolution", "batch", "window", "stage"]
    bars = list(dict.fromkeys(rows.sort_values(order, kind="stable")["bar"]))
    views = [
        _view(rows, bars[first : first + MOST_BARS], f"bars {first + 1} to {min(first + MOST_BARS, len(bars))}")
        for first in range(0, len(bars), MOST_BARS)
    ]
    x, y = Axis("", "category"), Axis("share of the bar (%)", "linear")
    yield Chart("breakdown", "Where time, MACs and bytes go", x, y, views)


def _bar(row: Mapping[Any, Any], varying: Sequence[str]) -> str:
    """The model, what varies of its case, and a network's stage."""
    words = [str(row["model"]), *(in_words(name, row[name]) for name in varying if not pd.isna(row[name]))]
    if pd.isna(row["channels"]):
        words.append("outside" if pd.isna(row["stage"]) else f"stage {int(row['stage'])}")
    return ", ".join(words)


def _view(rows: pd.DataFrame, bars: list[str], label: str) -> View:
    panels = []
    for column, title in AMOUNTS.items():
        sums = rows.astype({column: float}).pivot_table(index="bar", columns="role", values=column, aggfunc="sum")
        shares = 100 * sums.div(sums.sum(axis=1).replace(0.0, float("nan")), axis=0).reindex(bars).fillna(0.0)
        roles = [role for role in ROLES if role in shares]
        panels.append(Panel([title], [Trace(role, bars, shares[role].tolist(), shape="bar") for role in roles]))
    return View(label, panels, "Operator by operator, in a launch of its own.")
