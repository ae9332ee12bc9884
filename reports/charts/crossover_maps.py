"""Where two models swap places, over two axes at once: every setting measured, and the crossovers between them."""

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pandas as pd

from mixprof.data.parsing import parse_resolution
from mixprof.reports.answers import Answers
from mixprof.reports.answers.ratios import Pair, ratios
from mixprof.reports.answers.slices import FIXED, all_in_words, places
from mixprof.reports.charts.curves import AXES
from mixprof.reports.charts.spec import Axis, Chart, Panel, Trace, View, panels

OVER = (("resolution", "window"), ("resolution", "batch"), ("batch", "window"))
MOST = 6  # maps in a report, of the pairs that cross most often; the table of crossovers has all
NOTE = "Marks are of the faster one. Crossovers, with 95 % intervals, are interpolated between the settings measured."


def crossover_maps(answers: Answers) -> Iterator[Chart]:
    """A map for the pairs that swap places most often, over two axes along which they were measured."""
    crossings = answers.crossovers
    pairs = Counter(tuple(sorted(names)) for names in zip(crossings["first"], crossings["second"], strict=True))
    ordered = sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0]))
    yield from itertools.islice((chart for models, _ in ordered for chart in _charts(answers, models)), MOST)


def _charts(answers: Answers, models: tuple[str, ...]) -> Iterator[Chart]:
    (one, other), crossings = models, answers.crossovers
    compared = ratios(answers.cases, Pair(one, other, ""))
    both = crossings["first"].isin(models) & crossings["second"].isin(models)
    yield from filter(None, (_chart(compared, crossings[both], axes) for axes in OVER))


def _chart(compared: pd.DataFrame, crossings: pd.DataFrame, axes: tuple[str, str]) -> Chart | None:
    """A view for each setting at which two models cross along either axis and that has two places along both.

    compared: their ratios, setting by setting. crossings: their rows of `crossovers`.
    """
    fixed = [name for name in FIXED if name not in axes]
    groups = [rows for _, rows in compared[compared["ratio"].notna()].groupby(fixed, dropna=False)]
    maps = [(rows, _marks(crossings, rows.iloc[0][fixed].to_dict(), axes)) for rows in groups]
    maps = [(rows, marks) for rows, marks in maps if len(marks) and all(rows[axis].nunique() > 1 for axis in axes)]
    if not maps:
        return None
    maps.sort(key=lambda pair: (-len(pair[1]), -len(pair[0])))
    views = [_view(rows, marks, axes, {name: rows[name].iloc[0] for name in fixed}) for rows, marks in maps]
    models, kind = sorted({*crossings["first"], *crossings["second"]}), maps[0][0]["kind"].iloc[0]
    x, y = (Axis(AXES[axis][kind], measured=True) for axis in axes)
    name = f"crossovers_{'_'.join(axes)}_{'_and_'.join(models)}"
    return Chart(name, f"Where {' and '.join(models)} swap places", x, y, views)


def _marks(crossings: pd.DataFrame, fixed: dict[str, Any], axes: tuple[str, str]) -> pd.DataFrame:
    """The crossovers along either axis at the fixed settings of a map."""
    rows = crossings[crossings["axis"].isin(axes)]
    for name, value in fixed.items():
        rows = rows[rows[name].isna() if pd.isna(value) else (rows[name] == value).fillna(False).astype(bool)]
    return rows


def _view(rows: pd.DataFrame, marks: pd.DataFrame, axes: tuple[str, str], fixed: dict[str, Any]) -> View:
    shown = [
        Panel(names, [*_dots(part, axes), *_spans(marks[marks[["run", "lowering"]].eq(where).all(axis=1)], axes)])
        for names, part in panels(rows)
        for where in [part[["run", "lowering"]].iloc[0]]
    ]
    return View(all_in_words(fixed), shown, NOTE)


def _dots(rows: pd.DataFrame, axes: tuple[str, str]) -> Iterator[Trace]:
    """A cloud of the settings at which each is faster, in its own style, and of those that are undecided."""
    for faster, part in rows.groupby(rows["faster"].fillna("undecided")):
        x, y = (places(part, axis).tolist() for axis in axes)
        yield Trace(str(faster), x, y, ticks=part[axes[0]].astype(str).tolist(), shape="markers")


def _spans(marks: pd.DataFrame, axes: tuple[str, str]) -> Iterator[Trace]:
    """A line across the interval of each crossover, at the place that it has along the other axis."""
    for mark in marks.to_dict("records"):
        other = axes[1 - axes.index(mark["axis"])]
        is_side = other == "resolution"
        place = math.sqrt(math.prod(parse_resolution(mark["resolution"]))) if is_side else float(mark[other])
        span, across = [mark["low"], mark["place"], mark["high"]], [place] * 3
        x, y = (span, across) if mark["axis"] == axes[0] else (across, span)
        yield Trace("crossover", x, y, shape="span")
