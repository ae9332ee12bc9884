"""What each engine gives: one row an engine, the best marked where that is decided."""

from __future__ import annotations

import pandas as pd

from mixprof.reports.answers import Answers
from mixprof.reports.answers.engines import SAME
from mixprof.reports.answers.slices import in_words
from mixprof.reports.text.markdown import Part, Section, Table, number, section, words
from mixprof.reports.text.measurements import MEBIBYTE, latency_text

NOTE = (
    "Cold start is from the start of a process that does nothing else to its first result, file in the page cache; "
    "load and first inference are parts of it, memory is its peak. ✓ marks the best where it is decided: a latency by "
    "the interval of its ratio to each other one, a cold start where three launches or more were all shorter."
)


def what_each_gives(answers: Answers) -> list[Section]:
    """The section with a table per model and setting."""
    parts: list[Part] = []
    for _, rows in answers.engines.groupby(SAME, dropna=False, sort=False):
        row = rows.iloc[0]
        names = [name for name in SAME[2:] if not pd.isna(row[name]) and row[name] not in ("hot", "inference")]
        where = ", ".join(in_words(name, row[name]) for name in names)
        parts.append(f"### {row['model']}, {where}" + (f", run {row['run']}" if answers.several_runs else ""))
        varied = rows["layout"].nunique() > 1
        parts.append(Table(tuple(_cells(row, varied) for _, row in rows.iterrows())))
    return section("What each engine gives", NOTE, *parts) if parts else []


def _cells(row: pd.Series, varied: bool) -> dict[str, str]:
    def marked(text: str, best: str) -> str:
        return text + " ✓" * bool(row[best])

    return {
        "engine": str(row["lowering"]) + (f", {row['layout']}" if varied else ""),
        "dtype": str(row["dtype"]),
        "products in": words(row["product_dtypes"]),
        "in integers": words(row["integer_products"]),
        "latency (ms)": marked(latency_text(row), "best_latency"),
        "cold start (s)": marked(number(row["cold_start_s"]), "best_cold_start"),
        "load (s)": number(row["load_s"]),
        "first (ms)": number(row["first_ms"]),
        "artifact (MiB)": marked(number(row["artifact_bytes"], MEBIBYTE), "best_bytes"),
        "relative error": "" if pd.isna(row["relative_error"]) else f"{row['relative_error']:.1e}",
        "SQNR (dB)": number(row["sqnr_db"]),
        "memory (MiB)": number(row["deployed_peak_bytes"], MEBIBYTE),
    }
