"""What the page's interactive charts show, as data. A new chart is a function of the cases and a line in CHARTS."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from mixprof.reports.answers.ratios import PAIRS, ratios
from mixprof.reports.answers.slices import Slice, in_words, lowering_order, places, ranked_slices, settings
from mixprof.reports.charts.curves import AXES, QUANTITIES, Quantity, not_shown, shown
from mixprof.reports.charts.gains import gains
from mixprof.reports.charts.published import NOTE, with_accuracy
from mixprof.reports.frame import ANCHOR

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
    speed = cases["flops"].astype(float) / cases["latency_ms"] / 1e6
    return pd.concat(derived, axis=1).assign(side=places(cases, "resolution"), gflops_per_s=speed)


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


def roofline(cases: pd.DataFrame) -> Iterator[Chart]:
    """What each case reached under its device's measured roofs, a panel a lowering; where peaks were measured."""
    if "attainable_share" not in cases:
        return
    known = cases[["attainable_share", "intensity", "gflops_per_s"]].notna().all(axis=1)
    rows = cases[known & (cases["status"] == "ok") & (cases["model"] != ANCHOR)]
    groups: list[tuple[Any, pd.DataFrame]] = list(rows.groupby(["run", "device", "dtype", "lowering"]))
    panels = [
        Panel(", ".join(names), [*_clouds(part), *_roofs(part)])
        for names, part in sorted(groups, key=lambda group: (group[0][:3], lowering_order(group[0][3])))
    ]
    if panels:
        note = "Roofs as measured on this device: a copy beyond any cache, matrix products, vector multiply-adds."
        views = [View("every measured case", panels)]
        yield Chart("roofline", "Roofline", Axis("FLOPs per byte"), Axis("GFLOP/s"), views, note)


def _clouds(rows: pd.DataFrame) -> Iterator[Trace]:
    for model, part in rows.groupby("model"):
        yield Trace(str(model), "intensity", "gflops_per_s", list(map(int, part.index)), shape="markers")


def _roofs(rows: pd.DataFrame) -> Iterator[Trace]:
    """The lower of memory's and arithmetic's roof across the panel, for either unit."""
    across = np.geomspace(rows["intensity"].min() / 2, rows["intensity"].max() * 2, 50)
    memory = across * rows["copy_bytes_per_s"].iloc[0] / 1e9
    for unit in ("matrix", "vector"):
        roof = np.minimum(memory, rows[f"{unit}_flops_per_s"].iloc[0] / 1e9)
        yield Trace(f"roof, {unit} unit", across.tolist(), roof.tolist(), shape="lines")


def breakdown(cases: pd.DataFrame) -> Iterator[Chart]:
    """Shares of time, MACs and bytes by role, a bar a stage; one view for each case that was broken down."""
    if "breakdown" not in cases:
        return
    rows = cases[cases["breakdown"].notna() & (cases["model"] != ANCHOR)]
    views = [View(_case_label(row), _shares(json.loads(row["breakdown"]))) for row in rows.to_dict("records")]
    if views:
        note = "Operator by operator, in a launch of its own."
        x, y = Axis("stage", "category"), Axis("share of the forward (%)", "linear")
        yield Chart("breakdown", "Where a forward's time, MACs and bytes go", x, y, views, note)


def _case_label(row: Mapping[Any, Any]) -> str:
    names = ("model", "lowering", "resolution", "batch", "window")
    return ", ".join(in_words(name, row[name]) for name in names if not pd.isna(row[name]))


def _shares(parts: list[dict[str, Any]]) -> list[Panel]:
    stages = sorted({part["stage"] for part in parts}, key=lambda stage: (stage is None, stage))
    names = ["outside" if stage is None else f"stage {stage}" for stage in stages]
    panels = []
    for column, title in (("ms", "time"), ("macs", "MACs"), ("bytes", "bytes moved")):
        amounts: dict[str, dict[Any, float]] = {}
        for part in parts:
            of_role = amounts.setdefault(part["role"], dict.fromkeys(stages, 0.0))
            of_role[part["stage"]] += part[column] or 0
        whole = sum(sum(of_role.values()) for of_role in amounts.values()) or 1
        traces = [
            Trace(role, names, [100 * of_role[stage] / whole for stage in stages], shape="bar")
            for role, of_role in amounts.items()
        ]
        panels.append(Panel(title, traces))
    return panels


CHARTS = (pair_charts, curves, roofline, breakdown, accuracy_chart)
