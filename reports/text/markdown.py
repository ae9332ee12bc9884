"""Sections of a report: paragraphs in Markdown, tables of plain text. Numbers as people read them."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

ORDER = ["run", "lowering", "dtype", "model", "height", "width", "batch", "window"]  # of cases in a table
ORDER += ["channels", "step"]
SPECIAL = r"([\\|<*`~$]|(?<![^\W_])_|_(?![^\W_]))"  # an underscore within a word is harmless


@dataclass(frozen=True)
class Table:
    """Rows of equal columns, whose cells are plain text. The rows numbered in `differing` end " (differs)" at first."""

    rows: tuple[Mapping[str, str], ...]
    differing: frozenset[int] = frozenset()

    def shown(self) -> list[str]:
        """The columns that are not empty throughout."""
        return [name for name in self.rows[0] if any(row[name] for row in self.rows)] if self.rows else []

    def lines(self) -> list[list[str]]:
        """The cells of these columns, row by row."""
        shown = self.shown()
        lines = [[row[name] for name in shown] for row in self.rows]
        return [[line[0] + " (differs)" * (n in self.differing), *line[1:]] for n, line in enumerate(lines)]


Part = str | Table


@dataclass(frozen=True)
class Section:
    """A heading, and under it paragraphs of Markdown and tables."""

    heading: str
    parts: tuple[Part, ...]

    def markdown(self) -> str:
        """The section as summary.md has it."""
        return "\n\n".join([f"## {self.heading}", *map(as_markdown, self.parts)])

    def tables(self) -> list[Table]:
        """Its tables alone."""
        return [part for part in self.parts if isinstance(part, Table)]


def section(heading: str, *parts: Part) -> list[Section]:
    """One section, or none without parts."""
    return [Section(heading, parts)] if parts else []


def bullets(items: Iterable[str]) -> str:
    """Lines of Markdown as one list."""
    return "\n".join(f"- {item}" for item in items)


def as_markdown(part: Part) -> str:
    """A paragraph as it is, a table with its cells escaped."""
    if isinstance(part, str):
        return part
    shown = part.shown()
    lines = [list(map(cell, shown)), ["---"] * len(shown), *(list(map(cell, line)) for line in part.lines())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: Any, divisor: float = 1) -> str:
    """Four significant digits, plainly written; empty when it is missing."""
    if pd.isna(value):
        return ""
    scaled = value / divisor
    return f"{scaled:,.0f}" if abs(scaled) >= 1000 else f"{scaled:.4g}"


def of_floor(share: Any) -> str:
    """How near a latency is to its floor, the longer of arithmetic and least bytes: "73%"; empty where unknown."""
    return "" if pd.isna(share) else f"{share:.0%}"


def bounded(value: Any, low: Any, high: Any) -> str:
    """An estimate and its interval, three digits each: "2.1 [1.9, 2.3]"; without bounds where they are missing."""
    if pd.isna(value):
        return ""
    return _three(value) if pd.isna(low) else f"{_three(value)} [{_three(low)}, {_three(high)}]"


def _three(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def words(value: Any) -> str:
    """A text as it is; empty when it is missing. Whole numbers have no decimals."""
    return "" if pd.isna(value) else f"{value:g}" if isinstance(value, float) else str(value)


def table(rows: Iterable[Mapping[str, str]]) -> str:
    """Rows of equal columns as a Markdown table. Columns that are empty throughout are left out."""
    return as_markdown(Table(tuple(rows)))


def plain_table(rows: Iterable[Mapping[str, str]]) -> str:
    """Rows of equal columns, aligned for a terminal. Columns that are empty throughout are left out."""
    cells = Table(tuple({name: " ".join(value.split()) for name, value in row.items()} for row in rows))
    lines = [cells.shown(), *cells.lines()]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def cell(text: str) -> str:
    """On one line, with everything escaped that Markdown would take for its own: pipes, tags, code, emphasis."""
    return re.sub(SPECIAL, r"\\\1", " ".join(str(text).split()))
