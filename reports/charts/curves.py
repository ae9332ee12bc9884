"""Each quantity along each axis: a line a model, a panel a lowering (and run), logarithmic both ways."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mixprof.data.case import ANCHORS
from mixprof.reports.answers import Answers
from mixprof.reports.answers.ratios import Pair
from mixprof.reports.answers.slices import Slice, by_step, lowering_order, places, ranked_slices, settings
from mixprof.reports.charts.spec import Axis, Chart, Panel, Trace, View, panels

INTERVALS = {
    "launches": "95 % t interval over launches",
    "within-launch": "95 % interval within one launch, which says nothing of the next",
}
AXES = {
    "resolution": {"mixer": "feature map side (positions)", "network": "image side (pixels)"},
    "batch": {"mixer": "batch (maps)", "network": "batch (images)"},
    "window": dict.fromkeys(("mixer", "network"), "window or kernel side"),
}


@dataclass(frozen=True)
class Quantity:
    """A column that is drawn. Counts hold for any status and every lowering; measurements for ok cases only."""

    name: str
    column: str
    title: str
    unit: str
    divisor: float = 1
    measured: bool = True
    low: str | None = None  # columns of its 95 % interval
    high: str | None = None


MEASURED = (
    Quantity("latency", "latency_ms", "Latency", "latency (ms)", low="latency_low_ms", high="latency_high_ms"),
    Quantity("memory", "allocator_peak_bytes", "Peak memory", "allocator peak (MiB)", 2**20),
    Quantity("flops", "flops", "FLOPs", "GFLOPs per forward", 1e9, measured=False),
)
RATIO_BOUNDS = ("backward_over_forward_low", "backward_over_forward_high")
OF_TRAINING = Quantity(
    "backward_over_forward",
    "backward_over_forward",
    "Backward over forward",
    "times the forward",
    1,
    True,
    *RATIO_BOUNDS,
)
RUN_BOUNDS = ("run_gain_low", "run_gain_high")
GAINS = (
    Quantity("gain", "gain", "Speed-up over eager", "times as fast as eager", low="gain_low", high="gain_high"),
    Quantity("run_gain", "run_gain", "Speed-up over the first run", "times as fast", 1, True, *RUN_BOUNDS),
)


def curves(answers: Answers) -> Iterator[Chart]:
    """A chart for each kind of model, axis and quantity that has two places."""
    quantities = [quantity for quantity in (*MEASURED, OF_TRAINING, *GAINS) if quantity.column in answers.cases]
    for kind, suffix, step, rows in by_step(answers.cases[~answers.cases["model"].isin(ANCHORS)]):
        for axis, titles in AXES.items():
            slices = ranked_slices(rows, axis)
            for quantity in quantities:
                views = [view for chosen in slices if (view := _view(chosen, axis, quantity))]
                if views:
                    name, title = f"{quantity.name}_{axis}_{kind}s", f"{quantity.title} against {axis}, {kind}s"
                    x, y, static = Axis(titles[kind]), Axis(quantity.unit), quantity not in GAINS
                    slope = quantity.name if quantity in MEASURED else ""
                    yield Chart(name + suffix, title + step, x, y, views, slope, axis, static)


def _view(chosen: Slice, axis: str, quantity: Quantity) -> View | None:
    """One slice; None when it would show fewer than two places along the axis."""
    rows = _shown(chosen.rows, quantity)
    where = places(rows, axis)
    if len(set(where)) < 2:
        return None
    rows = rows.iloc[np.argsort(where, kind="stable")]
    several = rows["run"].nunique() > 1
    lines: dict[tuple[str, ...], dict[str, list[int]]] = {}  # a group-by of pandas takes too long for many views
    for row, run, lowering, model in zip(rows.index, rows["run"], rows["lowering"], rows["model"], strict=True):
        names = (*[run] * several, *[lowering] * quantity.measured)
        lines.setdefault(names, {}).setdefault(model, []).append(int(row))
    x, more = "side" if axis == "resolution" else axis, (quantity.low, quantity.high, axis, quantity.divisor)
    shown = [
        Panel(list(names), [Trace(model, x, quantity.column, line, *more) for model, line in sorted(by_model.items())])
        for names, by_model in sorted(lines.items(), key=lambda line: [lowering_order(name) for name in line[0]])
    ]
    return View(chosen.label(), shown, _note(chosen.rows, rows, quantity))


def _shown(rows: pd.DataFrame, quantity: Quantity) -> pd.DataFrame:
    """The rows that have the quantity: measurements of ok cases, or counts, which are equal under every lowering."""
    rows = rows[rows[quantity.column] > 0]  # neither missing nor without a place on a logarithmic axis
    if quantity.measured:
        return rows[rows["status"] == "ok"]
    return rows.drop_duplicates(["run", "model", "resolution", "batch", "window"])


def _note(asked: pd.DataFrame, shown: pd.DataFrame, quantity: Quantity) -> str:
    """Say what the bars are, how many cases are missing and why, and which counts are lower bounds."""
    notes = [intervals_in_words(shown)] if quantity.low else []
    if quantity in MEASURED and quantity.measured:
        notes.append(_not_shown(asked, quantity.column))
    inexact = shown[~shown["counts_exact"].fillna(True).astype(bool)]["model"].unique()
    if not quantity.measured and len(inexact):
        notes.append(f"At least, some operations being uncounted: {', '.join(inexact)}.")
    return " ".join(filter(None, notes))


def intervals_in_words(rows: pd.DataFrame) -> str:
    """Say what the bars of these rows are, where any has an interval, and how many rows are host-bound."""
    kinds = [words for name, words in INTERVALS.items() if (rows["interval"] == name).any()]
    bars = f"Bars: {'; or '.join(kinds)}." if kinds else ""
    bound = int(rows["host_bound"].fillna(False).astype(bool).sum())
    return bars + f" Host-bound, waiting for the host: {bound} of {len(rows)}." * bool(bound)


def _not_shown(asked: pd.DataFrame, column: str) -> str:
    """ "2 cases not shown: 1 unsupported, 1 oom." """
    counts = asked.loc[asked["status"] != "ok", "status"].value_counts().to_dict()
    if unmeasured := int((asked[column].isna() & (asked["status"] == "ok")).sum()):
        counts["not measured"] = unmeasured
    total = sum(counts.values())
    reasons = ", ".join(f"{count} {status}" for status, count in counts.items())
    return f"{total} case{'s' * (total > 1)} not shown: {reasons}." if total else ""


def ratio_curves(answers: Answers) -> Iterator[Chart]:
    """Attention over convolution along each axis, a line a lowering, a panel a run."""
    for pair, compared in answers.ratios.items():
        known = compared[compared["ratio"].notna()]
        for axis, titles in AXES.items():
            slices = ranked_slices(known, axis)
            if slices:
                name = f"ratio_{axis}_{pair.attention}_over_{pair.convolution}"
                title = f"{pair.attention} over {pair.convolution} against {axis}"
                views = [_ratio_view(pair, chosen, axis) for chosen in slices]
                x = Axis(titles[slices[0].rows["kind"].iloc[0]])
                yield Chart(name, title, x, Axis("ratio of latencies"), views, static=False)


def _ratio_view(pair: Pair, chosen: Slice, axis: str) -> View:
    rows = chosen.rows.iloc[np.argsort(places(chosen.rows, axis), kind="stable")]
    several = rows["run"].nunique() > 1
    by_run: dict[str, list[Trace]] = {}
    for names, line in panels(rows):
        ratio, low, high = (line[f"ratio{end}"].tolist() for end in ("", "_low", "_high"))
        x, ticks = places(line, axis).tolist(), line[axis].astype(str).tolist()
        trace = Trace(names[-1], x, ratio, low=low, high=high, ticks=ticks)
        by_run.setdefault(line["run"].iloc[0], []).append(trace)
    note = f"{pair.fairness.capitalize()}. Above 1 {pair.convolution} is faster, below 1 {pair.attention}. "
    shown = [Panel([run] * several, traces) for run, traces in by_run.items()]
    return View(chosen.label(), shown, note + intervals_in_words(rows))


def gains(answers: Answers) -> Iterator[Chart]:
    """Speed-up over eager, a mark a model and lowering, a panel a run; at each setting with another lowering."""
    cases = answers.cases
    for kind, suffix, step, rows in by_step(cases[~cases["model"].isin(ANCHORS) & cases["gain"].notna()]):
        views = [_gain_view(chosen) for chosen in settings(rows)]
        title, y = f"Speed-up of each lowering over eager, {kind}s{step}", Axis("times as fast as eager")
        yield Chart(f"gain_{kind}s{suffix}", title, Axis("", "category"), y, views)


def _gain_view(chosen: Slice) -> View:
    by_run: dict[str, list[Trace]] = {}
    for names, part in panels(chosen.rows):
        line = part.sort_values("model").index.tolist()
        trace = Trace(names[-1], "model", "gain", line, "gain_low", "gain_high", shape="markers")
        by_run.setdefault(part["run"].iloc[0], []).append(trace)
    shown = [Panel([run] * (len(by_run) > 1), traces) for run, traces in by_run.items()]
    return View(chosen.label(), shown, f"{intervals_in_words(chosen.rows)} Above 1: faster than eager.".strip())
