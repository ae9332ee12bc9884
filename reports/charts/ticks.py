"""Labels along logarithmic axes: plain numbers, at least three a decade, none over another."""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

SMALL = 6.5  # points: the size of labels inside a figure
LETTER = 0.063  # width of a letter of a label, inches
A_DECADE = 3  # labels
STEPS: tuple[Sequence[float], ...] = (
    (1, 2, 5),
    (1, 1.5, 2, 3, 5, 7),
    (1, 1.2, 1.4, 1.7, 2, 2.5, 3, 4, 5, 6, 8),
    tuple(np.arange(10, 100, 5) / 10),
    tuple(np.arange(10, 100) / 10),
)


def round_numbers(low: float, high: float) -> list[float]:
    """Round numbers from low to high, the fewest kinds of them that are three a whole decade and three in all."""
    decades = 10.0 ** np.arange(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    enough = max(3, A_DECADE * int(math.log10(high / low)))
    ticks: list[float] = []
    for steps in STEPS:
        ticks = [float(tick) for tick in np.outer(decades, steps).flatten() if low <= tick <= high]
        if len(ticks) >= enough:
            break
    return ticks


def log_ticks(axes: Sequence[Axes], side: str, length: float) -> None:
    """Round numbers along the "x" or "y" axis that all panels share, of this length in inches."""
    low, high = getattr(axes[0], f"get_{side}lim")()
    set_ticks(axes, side, {tick: f"{tick:,.10g}" for tick in round_numbers(low, high)}, length)


def measured_ticks(axes: Sequence[Axes], side: str, places: Mapping[float, str], length: float) -> None:
    """The measured places along an axis, by their names, and whole round numbers between them where these are few."""
    low, high = getattr(axes[0], f"get_{side}lim")()
    labels = dict(places)
    for tick in round_numbers(low, high):
        near = any(abs(math.log(tick / place)) < 0.12 * math.log(high / low) for place in places)
        if len(places) < A_DECADE * int(math.log10(high / low)) and tick == round(tick) and not near:
            labels[tick] = f"{tick:,.10g}"
    set_ticks(axes, side, dict(sorted(labels.items())), length)


def set_ticks(axes: Sequence[Axes], side: str, labels: Mapping[float, str], length: float) -> None:
    """Ticks at exactly these places, written as given; slanted along x where they would not fit side by side."""
    low, high = getattr(axes[0], f"get_{side}lim")()
    places, widths = np.log(list(labels)), np.array([len(label) for label in labels.values()])
    gaps = np.diff(places) / np.log(high / low) * 0.8 * length
    if side == "x" and (gaps < LETTER * (1 + (widths[:-1] + widths[1:]) / 2)).any():
        slanted(axes, int(widths.max()), 60)
    for panel in axes:
        axis = getattr(panel, f"{side}axis")
        axis.set_major_locator(FixedLocator(list(labels)))
        axis.set_major_formatter(FixedFormatter(list(labels.values())))
        axis.set_minor_locator(NullLocator())


def named_ticks(axes: Sequence[Axes], names: Sequence[str]) -> None:
    """Names along x at 0, 1, 2, ..."""
    for panel in axes:
        panel.set_xticks(range(len(names)), names)
    slanted(axes, max(map(len, names)), 40)


def slanted(axes: Sequence[Axes], letters: int, angle: float) -> None:
    """Turn the labels along x, the longest of so many letters, and make the figure higher by what they take more."""
    for panel in axes:
        panel.tick_params(axis="x", labelrotation=angle)
        panel.xaxis.set_tick_params(labelrotation_mode="xtick")
    figure = axes[0].figure
    figure.set_figheight(figure.get_figheight() + LETTER * letters * math.sin(math.radians(angle)))  # type: ignore


def spread(heights: Sequence[float], gap: float) -> np.ndarray:
    """Heights moved apart to at least the gap, in the order that they have, from below; none above 1 if all fit."""
    order = np.argsort(heights, kind="stable")
    placed = np.array(heights, dtype=float)
    for lower, upper in itertools.pairwise(order):
        placed[upper] = max(placed[upper], placed[lower] + gap)
    top = 1.0
    for place in order[::-1]:
        placed[place] = min(placed[place], top)
        top = placed[place] - gap
    return placed
