"""A chart as data, which the figures of a report and its page both draw."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from mixprof.reports.answers.slices import lowering_order

Values = str | list[float] | list[str] | None  # a column of the cases, read at a trace's rows, or the values themselves


@dataclass(frozen=True)
class Axis:
    """Its title with the unit, and "log", "linear" or "category"."""

    title: str
    scale: str = "log"
    measured: bool = False  # whether its ticks are the places of y that were measured


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
    shape: str = "lines+markers"  # or "markers", "bar", "mark" across bars, "roof": a line that bears its name
    dashed: bool = False

    def numbers(self, column: str, cases: pd.DataFrame) -> np.ndarray:
        """The values of "x", "y", "low" or "high", in the unit of the axis; NaN where there are none. (points,)"""
        source, divisor = getattr(self, column), 1 if column == "x" else self.divisor
        return read(source, self.rows, cases).astype(float) / divisor


def read(source: Values, rows: list[int], cases: pd.DataFrame) -> np.ndarray:
    """A column of the cases at these rows, or the values given; missing numbers are NaN. (points,)"""
    if isinstance(source, str):
        column = cases[source].iloc[rows]
        return np.asarray(column.astype(object).where(column.notna(), np.nan).to_numpy())
    return np.array(source, dtype=object)


@dataclass(frozen=True)
class Panel:
    """One of the small multiples of a view; they share the ranges of their axes."""

    names: list[str]  # of the run, the lowering
    traces: list[Trace]


@dataclass(frozen=True)
class View:
    """A chart at one choice of the settings that it holds fixed."""

    label: str
    panels: list[Panel]
    note: str = ""


@dataclass(frozen=True)
class Chart:
    """A figure of the page, named as its file; a reader picks one of its views."""

    name: str
    title: str
    x: Axis
    y: Axis
    views: list[View]
    metric: str = ""  # whose exponents stand at the lines, along `axis`
    axis: str = ""
    static: bool = True  # whether its first view is a file of the report, too


def panels(rows: pd.DataFrame, columns: Sequence[str] = ("run", "lowering")) -> list[tuple[list[str], pd.DataFrame]]:
    """The rows of each panel, the last column a lowering; a panel is named by it and by what else differs."""
    groups = [(dict(zip(columns, names, strict=True)), part) for names, part in rows.groupby(list(columns))]
    groups.sort(key=lambda group: [*list(group[0].values())[:-1], lowering_order(str(group[0]["lowering"]))])
    shown = [name for name in columns if name == "lowering" or rows[name].nunique() > 1]
    return [([str(names[name]) for name in shown], part) for names, part in groups]
