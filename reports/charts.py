"""What the page's interactive charts show, as data. A new chart is a function of the cases and a line in CHARTS."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from reports.curves import AXES, QUANTITIES, Quantity, not_shown, shown
from reports.frame import ANCHOR
from reports.gains import gains
from reports.pairs import PAIRS, ratios
from reports.published import NOTE, with_accuracy
from reports.slices import Slice, lowering_order, places, ranked_slices, settings

Values = str | list[float] | list[str] | None  # a column of the cases, read at a trace's rows, or the values themselves


@dataclass(frozen=True)
class Axis:
    """Its title with the unit, and "log", "linear" or "category"."""

    title: str
    scale: str = "log"


@dataclass(frozen=True)
class Trace:
    """One line, cloud or stack of bars in a panel. Its numbers are divided by the divisor before they are drawn."""

    name: str  # in the legend; a model has its own style
    x: Values
    y: Values
    rows: list[int] = field(default_factory=list)  # of the cases
    low: Values = None  # ends of the 95 % interval of y
    high: Values = None
    ticks: Values = None  # names of the places along x
    divisor: float = 1
    shape: str = "lines+markers"  # or "lines", "markers", "bar"


@dataclass(frozen=True)
class Panel:
    """One of the small multiples of a view; they share the range of their y axes."""

    title: str
    traces: list[Trace]


@dataclass(frozen=True)
class View:
    """What a chart shows at one choice of the settings that it holds fixed."""

    label: str
    panels: list[Panel]
    note: str = ""


@dataclass(frozen=True)
class Chart:
    """A figure of the page, named as its static sibling; a reader picks one of its views."""

    name: str
    title: str
    x: Axis
    y: Axis
    views: list[View]
    note: str = ""


BARS = "Bars: 95 % intervals."
GAIN = Quantity("gain", "gain", "Speed-up over eager", "times as fast as eager", 1, True, "gain_low", "gain_high")
RUN_GAIN = Quantity(
    "run_gain", "run_gain", "Speed-up over the first run", "times as fast", 1, True, "run_gain_low", "run_gain_high"
)


def with_derived(frame: pd.DataFrame) -> pd.DataFrame:
    """The cases with what charts need beside what was measured: places, gains, published accuracy. Rows from 0 up."""
    cases = frame.reset_index(drop=True)
    derived = [cases, gains(cases, "lowering", "eager"), with_accuracy(cases)]
    if cases["run"].nunique() > 1:
        derived.append(gains(cases, "run", cases["run"].iloc[0]).add_prefix("run_"))
    return pd.concat(derived, axis=1).assign(side=places(cases, "resolution"))


def charts(cases: pd.DataFrame) -> list[Chart]:
    """Every chart that these cases, as `with_derived` makes them, can fill."""
    return [chart for draw in CHARTS for chart in draw(cases)]


def curves(cases: pd.DataFrame) -> Iterator[Chart]:
    """Each quantity along each axis, a line a model, a panel a lowering (and run)."""
    quantities = [*QUANTITIES, GAIN, *([RUN_GAIN] if "run_gain" in cases else [])]
    for kind, rows in cases[cases["model"] != ANCHOR].groupby("kind"):
        for axis, titles in AXES.items():
            slices = ranked_slices(rows, axis)
            for quantity in quantities:
                views = [view for each in slices if (view := _view(each, axis, quantity))]
                if views:
                    name, title = f"{quantity.name}_{axis}_{kind}s", f"{quantity.title} against {axis}, {kind}s"
                    note = BARS if quantity.low else ""
                    yield Chart(name, title, Axis(titles[str(kind)]), Axis(quantity.unit), views, note)


def _view(chosen: Slice, axis: str, quantity: Quantity) -> View | None:
    """One slice; None when it would show fewer than two places along the axis."""
    rows = shown(chosen.rows, quantity)
    where = places(rows, axis)
    if len(set(where)) < 2:
        return None
    rows = rows.iloc[np.argsort(where, kind="stable")]
    several = rows["run"].nunique() > 1
    lines: dict[tuple[str, ...], dict[str, list[int]]] = {}
    for row, run, lowering, model in zip(rows.index, rows["run"], rows["lowering"], rows["model"], strict=True):
        panel = (run if several else "", lowering if quantity.measured else "")
        lines.setdefault(panel, {}).setdefault(model, []).append(int(row))
    x = "side" if axis == "resolution" else axis
    panels = [
        Panel(
            ", ".join(filter(None, names)),
            [
                Trace(model, x, quantity.column, found, quantity.low, quantity.high, axis, quantity.divisor)
                for model, found in sorted(lines[names].items())
            ],
        )
        for names in sorted(lines, key=lambda names: (names[0], lowering_order(names[1])))
    ]
    note = not_shown(chosen.rows, quantity.column) if quantity.column in ("latency_ms", "allocator_peak_bytes") else ""
    return View(chosen.label(), panels, note)


def pair_charts(cases: pd.DataFrame) -> Iterator[Chart]:
    """Attention over convolution along each axis, a line a lowering, a panel a run."""
    for pair in PAIRS:
        compared = ratios(cases, pair)
        for axis, titles in AXES.items():
            slices = ranked_slices(compared[compared["ratio"].notna()], axis)
            if slices:
                yield Chart(
                    f"ratio_{axis}_{pair.attention}_over_{pair.convolution}",
                    f"{pair.attention} over {pair.convolution} against {axis}",
                    Axis(titles[slices[0].rows["kind"].iloc[0]]),
                    Axis("ratio of latencies"),
                    [View(each.label(), _ratio_panels(each.rows, axis)) for each in slices],
                    f"{pair.fairness.capitalize()}. Above 1 {pair.convolution} is faster, below 1 {pair.attention}. "
                    + BARS,
                )


def _ratio_panels(rows: pd.DataFrame, axis: str) -> list[Panel]:
    rows = rows.iloc[np.argsort(places(rows, axis), kind="stable")]
    several = rows["run"].nunique() > 1
    return [
        Panel(
            str(run) if several else "",
            [_ratio_trace(lowering, line, axis) for lowering, line in _by_lowering(part)],
        )
        for run, part in rows.groupby("run")
    ]


def _by_lowering(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    return [(name, rows[rows["lowering"] == name]) for name in sorted(rows["lowering"].unique(), key=lowering_order)]


def _ratio_trace(lowering: str, line: pd.DataFrame, axis: str) -> Trace:
    ratio, low, high = (line[name].tolist() for name in ("ratio", "ratio_low", "ratio_high"))
    return Trace(
        lowering, places(line, axis).tolist(), ratio, low=low, high=high, ticks=line[axis].astype(str).tolist()
    )


def accuracy_chart(cases: pd.DataFrame) -> Iterator[Chart]:
    """Throughput against published accuracy, a mark a network, a panel a lowering (and run)."""
    rated = cases[cases["top1_percent"].notna() & cases["images_per_s"].notna()]
    views = []
    for chosen in settings(rated):
        several = chosen.rows["run"].nunique() > 1
        panels = [
            Panel(
                f"{run}, {lowering}" if several else lowering,
                [_network(row) for row in zip(part.index, part["model"], strict=True)],
            )
            for run, rows in chosen.rows.groupby("run")
            for lowering, part in _by_lowering(rows)
        ]
        views.append(View(chosen.label(), panels))
    if views:
        title, x = "Throughput against published accuracy", Axis("top-1 accuracy (%)", "linear")
        yield Chart("throughput_accuracy", title, x, Axis("images per second"), views, f"{NOTE} {BARS}")


def _network(row: tuple[int, str]) -> Trace:
    bounds = ("images_per_s_low", "images_per_s_high")
    return Trace(row[1], "top1_percent", "images_per_s", [int(row[0])], *bounds, shape="markers")


CHARTS = (pair_charts, curves, accuracy_chart)
