"""The series of a case as a figure of SVG: every run with its interval, the levels, and where they change."""

import math
from collections.abc import Callable
from html import escape

from mixprof.reports.gate.trend_text import in_words, name_of
from mixprof.reports.gate.trends import Change, Series, Testbed

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 800, 200, 60, 12, 22, 24  # pixels
Place = Callable[[float], float]


def chart(bed: Testbed, series: Series, commit_url: str | None) -> str:
    """A figure; its runs stand at the places of all runs of the testbed."""
    name = escape(series.timed.label())
    caption = f"<figcaption>{name}{_words(series)}</figcaption>"
    if not series.points:
        return f"<figure>{caption}<p>No run has a time of it.</p></figure>"
    places = {id(run): place for place, run in enumerate(bed.runs)}
    x = _scale(0, max(len(bed.runs) - 1, 1), LEFT + 8, WIDTH - RIGHT - 8)
    ends = [value + sign * (half or 0) for _, value, half in series.points for sign in (-1, 1)]
    low, high = min(ends), max(ends)
    margin = max(0.05 * (high - low), 0.005)
    y = _scale(low - margin, high + margin, HEIGHT - BOTTOM, TOP)
    at = [x(places[id(run)]) for run, *_ in series.points]
    parts = [*_grid(low, high, y), *_days(bed), *_levels(series, at, y), *_steps(series, places, x)]
    parts += [_point(series, number, at[number], y, commit_url) for number in range(len(at))]
    label = f"time of {name} over the anchor's, run by run"
    opening = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
    return f"<figure>{caption}{opening}{''.join(parts)}</svg></figure>"


def _words(series: Series) -> str:
    return "".join(f" · {escape(in_words(change))} with {escape(name_of(change.after))}" for change in series.changes)


def _scale(low: float, high: float, first: float, last: float) -> Place:
    return lambda value: first + (value - low) / (high - low) * (last - first)


def _grid(low: float, high: float, y: Place) -> list[str]:
    parts = [f'<text x="4" y="{TOP - 10}">time / anchor\'s</text>']
    for value in (low, (low + high) / 2, high):
        line = f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
        text = f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{math.exp(value):.4g}</text>'
        parts += [line, text]
    return parts[: 3 if high - low < 1e-9 else None]


def _days(bed: Testbed) -> list[str]:
    ends = ((LEFT, "start", bed.runs[0]), (WIDTH - RIGHT, "end", bed.runs[-1]))
    return [
        f'<text x="{x}" y="{HEIGHT - 6}" text-anchor="{at}">{escape(run.created[:10])}</text>' for x, at, run in ends
    ]


def _levels(series: Series, at: list[float], y: Place) -> list[str]:
    return [
        f'<line class="level" x1="{at[first]:.1f}" x2="{at[last]:.1f}" y1="{y(median):.1f}" y2="{y(median):.1f}"/>'
        for first, last, median in series.levels
    ]


def _steps(series: Series, places: dict[int, int], x: Place) -> list[str]:
    return [_step(change, x(places[id(change.after)]) - 4) for change in series.changes]


def _step(change: Change, x: float) -> str:
    mark, words = "worse" if change.is_worse else "better", escape(in_words(change).partition(" [")[0])
    side = "end" if x > WIDTH / 2 else "start"
    line = f'<line class="step {mark}" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{HEIGHT - BOTTOM}"/>'
    return f'{line}<text class="{mark}" x="{x:.1f}" y="{TOP - 10}" text-anchor="{side}">{words}</text>'


def _point(series: Series, number: int, x: float, y: Place, commit_url: str | None) -> str:
    run, value, half = series.points[number]
    interval = f" [{math.exp(value - half):.4g}, {math.exp(value + half):.4g}]" if half else ""
    subject = run.commit.subject if run.commit else ""
    title = f"<title>{escape(f'{name_of(run)} {subject}: {math.exp(value):.4g}{interval}')}</title>"
    ends = [f"{y(value + sign * half):.1f}" for sign in (-1, 1)] if half else []
    bar = f'<line class="bar" x1="{x:.1f}" x2="{x:.1f}" y1="{ends[0]}" y2="{ends[1]}"/>' if ends else ""
    point = f'{bar}<circle class="point" cx="{x:.1f}" cy="{y(value):.1f}" r="3">{title}</circle>'
    return f'<a href="{escape(commit_url + run.commit.hash)}">{point}</a>' if commit_url and run.commit else point
