"""All figures of a report, each as PNG and SVG."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from mixprof.reports.answers import Answers, answers
from mixprof.reports.answers.slices import by_step
from mixprof.reports.charts import fleet, heatmaps, slopes
from mixprof.reports.charts.breakdown import breakdown
from mixprof.reports.charts.clouds import accuracy, roofline
from mixprof.reports.charts.crossover_maps import crossover_maps
from mixprof.reports.charts.curves import curves, gains, ratio_curves
from mixprof.reports.charts.draw import draw, finish
from mixprof.reports.charts.spec import Chart
from mixprof.reports.charts.style import SETTINGS, Styles, save, styles_of
from mixprof.reports.charts.training import step_memory, step_split

ON_PAGE = (ratio_curves, curves, gains, crossover_maps, roofline, breakdown, step_split, step_memory, accuracy)


def charts(answers: Answers) -> list[Chart]:
    """Every chart that there is data for. A new one is a function of the answers and a place in ON_PAGE."""
    drawn = [chart for make in ON_PAGE for chart in make(answers)]
    return [replace(chart, title=f"Simulated: {chart.title}") for chart in drawn] if answers.simulated else drawn


def write_figures(answers: Answers, charts: Sequence[Chart], folder: Path) -> list[Path]:
    """Write all figures into the folder; the files written."""
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(SETTINGS):
        return [path for name, figure in all_figures(answers, charts) for path in save(figure, folder, name)]


def figures(frame: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    """A name and a figure at a time, for what can be drawn of a frame or of any subset of its rows."""
    known = answers(frame)
    return all_figures(known, charts(known))


def all_figures(answers: Answers, charts: Sequence[Chart]) -> Iterator[tuple[str, Figure]]:
    """Every figure; across one that shows no measurement it says so."""
    for name, figure in _drawn(answers, charts):
        if answers.simulated:
            figure.text(0.5, 0.5, "simulated", size=48, color="grey", alpha=0.3, rotation=30, ha="center", va="center")
        yield name, figure


def _drawn(answers: Answers, charts: Sequence[Chart]) -> Iterator[tuple[str, Figure]]:
    """The first view of each chart that is a file, too; then what only a file shows."""
    styles = styles_of(answers.cases)
    for chart in charts:
        if chart.static:
            yield chart.name, _first_view(chart, answers, styles)
    for pair, compared in answers.ratios.items():
        for _, suffix, step, rows in by_step(compared):
            names = f"{pair.attention}_over_{pair.convolution}{suffix}"
            if figure := heatmaps.draw(rows, pair):
                yield f"speedup_{names}", figure
            if figure := fleet.draw(rows, pair, step):
                yield f"testbeds_{names}", figure


def _first_view(chart: Chart, answers: Answers, styles: Styles) -> Figure:
    view = chart.views[0]
    figure, axes = draw(chart, view, answers.cases, styles)
    if not chart.metric:
        return finish(figure, chart, view, styles)
    for panel, content in zip(axes, view.panels, strict=True):
        slopes.write(panel, content, chart, answers, styles)
    return finish(figure, chart, view, styles, slopes.NOTE)
