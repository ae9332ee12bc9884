"""Tables as text: numbers as people read them, cells that cannot break their table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

SPECIAL = r"([\\|<*`~$]|(?<![^\W_])_|_(?![^\W_]))"  # an underscore within a word is harmless


def number(value: Any, divisor: float = 1) -> str:
    """Four significant digits, plainly written; empty when it is missing."""
    if pd.isna(value):
        return ""
    scaled = value / divisor
    return f"{scaled:,.0f}" if abs(scaled) >= 1000 else f"{scaled:.4g}"


def table(rows: Iterable[Mapping[str, str]]) -> str:
    """Rows of equal columns as a Markdown table. Columns that are empty throughout are left out."""
    rows = list(rows)
    shown = [name for name in rows[0] if any(row[name] for row in rows)]
    lines = [[cell(name) for name in shown], ["---"] * len(shown)]
    lines += [[cell(row[name]) for name in shown] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plain_table(rows: Iterable[Mapping[str, str]]) -> str:
    """Rows of equal columns, aligned for a terminal. Columns that are empty throughout are left out."""
    rows = [{name: " ".join(value.split()) for name, value in row.items()} for row in rows]
    shown = [name for name in rows[0] if any(row[name] for row in rows)]
    widths = [max(len(name), *(len(row[name]) for row in rows)) for name in shown]
    lines = [shown, *([row[name] for name in shown] for row in rows)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def cell(text: str) -> str:
    """On one line, with everything escaped that Markdown would take for its own: pipes, tags, code, emphasis."""
    return re.sub(SPECIAL, r"\\\1", " ".join(str(text).split()))
