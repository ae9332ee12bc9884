"""Clouds of cases: the roofline, and throughput against published accuracy."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from mixprof.reports.answers import Answers
from mixprof.reports.answers.slices import settings
from mixprof.reports.charts.curves import intervals_in_words
from mixprof.reports.charts.spec import Axis, Chart, Panel, Trace, View, panels

ACCURACY_NOTE = "Accuracy as published by the Swin and DWNet papers, not measured here."
ROOFLINE_NOTE = (
    "Roofs as measured on this device: a copy beyond any cache, matrix products, vector multiply-adds. "
    "Networks are hollow."
)
GIGA = 1e9
MARGIN = 4  # factor between the first case and the left end of its roof, which bears a name there


def accuracy(answers: Answers) -> Iterator[Chart]:
    """Throughput against published accuracy, a mark a network, a panel a lowering (and run)."""
    cases = answers.cases
    views = []
    for chosen in settings(cases[cases["top1_percent"].notna() & cases["images_per_s"].notna()]):
        shown = [
            Panel(names, [_network(row, model) for row, model in zip(part.index.tolist(), part["model"], strict=True)])
            for names, part in panels(chosen.rows)
        ]
        views.append(View(chosen.label(), shown, f"{ACCURACY_NOTE} {intervals_in_words(chosen.rows)}".rstrip()))
    if views:
        title, x = "Throughput against published accuracy", Axis("top-1 accuracy (%)", "linear")
        yield Chart("throughput_accuracy", title, x, Axis("images per second"), views)


def _network(row: int, model: str) -> Trace:
    bounds = ("images_per_s_low", "images_per_s_high")
    return Trace(model, "top1_percent", "images_per_s", [row], *bounds, shape="markers")


def roofline(answers: Answers) -> Iterator[Chart]:
    """The speed of each case under its device's measured roofs, a panel a lowering; where peaks were measured."""
    rows = answers.rooflines
    if rows.empty:
        return
    left = rows["intensity"].min() / MARGIN
    shown = [
        Panel(names, [*_clouds(part), *_roofs(part, left)])
        for names, part in panels(rows, ("run", "device", "dtype", "step", "lowering"))
    ]
    view = View("every measured case", shown, ROOFLINE_NOTE)
    yield Chart("roofline", "Roofline", Axis("FLOPs per byte"), Axis("GFLOP/s"), [view])


def _clouds(rows: pd.DataFrame) -> Iterator[Trace]:
    for model, part in rows.groupby("model"):
        yield Trace(str(model), "intensity", "gflops_per_s", list(map(int, part.index)), shape="markers")


def _roofs(rows: pd.DataFrame, left: float) -> Iterator[Trace]:
    """Arithmetic's roof from where it meets memory's, for either unit, and memory's up to the higher of the two."""
    peaks = rows.iloc[0]
    right = rows["intensity"].max() * 2
    tops = {unit: peaks[f"{unit}_flops_per_s"] for unit in ("matrix", "vector")}
    rate = peaks["copy_bytes_per_s"]
    end = min(right, max(tops.values()) / rate)
    if left < end:
        copy = np.geomspace(left, end, 20)
        name = f"copy {rate / GIGA:.3g} GB/s"
        yield Trace(name, copy.tolist(), (copy * rate / GIGA).tolist(), shape="roof")
    for unit, top in tops.items():
        across = np.geomspace(max(left, min(top / rate, right)), right, 2)
        if across[0] < right:
            name, dashed = f"{unit} {top / GIGA:.3g}", unit == "vector"
            yield Trace(name, across.tolist(), [top / GIGA] * 2, shape="roof", dashed=dashed)
