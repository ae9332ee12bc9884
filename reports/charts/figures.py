"""All figures of a report, each as PNG and SVG."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from mixprof.reports.answers import breakdown, roofline
from mixprof.reports.answers.ratios import PAIRS
from mixprof.reports.answers.slices import best_slice
from mixprof.reports.charts import crossover_maps, curves, gains, heatmaps, published
from mixprof.reports.charts.style import SETTINGS, model_styles, save
from mixprof.reports.frame import ANCHOR


def write_figures(frame: pd.DataFrame, out: str | Path) -> list[Path]:
    """Write what of this frame can be drawn into the folder `out`; the files written."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(SETTINGS):
        return [path for name, figure in figures(frame) for path in save(figure, folder, name)]


def figures(frame: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    """A name and a figure at a time: for each kind of model its curves and gains; then what compares models."""
    styles = model_styles(frame)
    for kind, rows in frame[frame["model"] != ANCHOR].groupby("kind"):
        for axis in curves.AXES:
            chosen = best_slice(rows, axis)
            for quantity in curves.QUANTITIES:
                figure = chosen and curves.draw(chosen, str(kind), axis, quantity, styles)
                if figure:
                    yield f"{quantity.name}_{axis}_{kind}s", figure
        figure = gains.draw(frame, str(kind))
        if figure:
            yield f"gain_{kind}s", figure
    figure = published.draw(frame, styles)
    if figure:
        yield "throughput_accuracy", figure
    for pair in PAIRS:
        figure = heatmaps.draw(frame, pair)
        if figure:
            yield f"speedup_{pair.attention}_over_{pair.convolution}", figure
    yield from crossover_maps.maps(frame, styles)
    for name, draw in (("roofline", roofline.draw), ("breakdown", breakdown.draw)):
        figure = draw(frame)
        if figure:
            yield name, figure
