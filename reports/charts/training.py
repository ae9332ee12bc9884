"""A training step: its parts stacked and the whole beside them; the bytes of its peak, predicted beside measured."""

from collections.abc import Callable, Iterator

import pandas as pd

from mixprof.reports.answers import Answers
from mixprof.reports.answers.slices import Slice, settings
from mixprof.reports.charts.curves import intervals_in_words
from mixprof.reports.charts.spec import Axis, Chart, Panel, Trace, View, panels
from mixprof.reports.steps import KINDS, PARTS

MEBIBYTE = 2**20
WHOLE, STATE = "whole step", "optimizer state"
TIMES = "Parts are timed apart, waited for one by one; the whole is timed by itself."
BYTES = "Bytes alive at the peak of one step; predicted on tensors without values."


def step_split(answers: Answers) -> Iterator[Chart]:
    """Stacked parts of each model's step, a panel a lowering (and run), a view a setting."""
    cases = answers.cases
    title, unit = "Where a training step's time goes", Axis("milliseconds", "linear")
    for kind, views in _views(cases[cases["forward_ms"].notna()], _times, TIMES):
        yield Chart(f"step_split_{kind}s", f"{title}, {kind}s", Axis("", "category"), unit, views)


def step_memory(answers: Answers) -> Iterator[Chart]:
    """Stacked categories of the bytes of each model's step, as measured and below it as predicted."""
    cases = answers.cases
    title, unit = "Where a training step's memory goes", Axis("MiB", "linear")
    known = cases[["step_peak_bytes", "predicted_step_peak_bytes"]].notna().any(axis=1)
    for kind, views in _views(cases[known], _bytes, BYTES):
        yield Chart(f"step_memory_{kind}s", f"{title}, {kind}s", Axis("", "category"), unit, views)


def _views(
    rows: pd.DataFrame, traces: Callable[[pd.DataFrame], list[Trace]], note: str
) -> Iterator[tuple[str, list[View]]]:
    for kind, of_kind in rows.groupby("kind"):
        yield str(kind), [_view(chosen, traces, note) for chosen in settings(of_kind)]


def _view(chosen: Slice, traces: Callable[[pd.DataFrame], list[Trace]], note: str) -> View:
    shown = [Panel(names, traces(part.sort_values("model"))) for names, part in panels(chosen.rows)]
    if traces is _times:
        note = f"{note} {intervals_in_words(chosen.rows).replace('Bars:', 'Whiskers:')}".strip()
    return View(chosen.label(), shown, note)


def _times(rows: pd.DataFrame) -> list[Trace]:
    places = rows.index.tolist()
    parts = [
        Trace(part, "model", f"{part}_ms", places, f"{part}_low_ms", f"{part}_high_ms", shape="bar") for part in PARTS
    ]
    return [*parts, Trace(WHOLE, "model", "latency_ms", places, "latency_low_ms", "latency_high_ms", shape="mark")]


def _bytes(rows: pd.DataFrame) -> list[Trace]:
    names = [f"{model}{words}" for model in rows["model"] for words in ("", ", predicted")]
    return [
        Trace(STATE if kind == "optimizer" else kind, names, _interleaved(rows, kind), divisor=MEBIBYTE, shape="bar")
        for kind in KINDS
    ]


def _interleaved(rows: pd.DataFrame, kind: str) -> list[float]:
    """Measured and predicted bytes of each row in turn; NaN where there are none."""
    both = rows[[f"step_{kind}_bytes", f"predicted_step_{kind}_bytes"]]
    return [float(value) for value in both.to_numpy(dtype=float, na_value=float("nan")).ravel()]
