"""The mixer exchanged inside one network, nothing else changed."""

from typing import Any

import pandas as pd

from mixprof.reports.answers import Answers
from mixprof.reports.answers.slices import in_words, step_column
from mixprof.reports.text.markdown import Section, Table, bounded, number, of_floor, section, words

COUNTS = {"params": ("parameters (M)", 1e6), "macs": ("MACs (M)", 1e6), "allocator_peak_bytes": ("peak (MiB)", 2**20)}
NOTE = (
    "One network, its own mixer exchanged for another, nothing else changed. Each line is the other mixer against the "
    "network's own: the ratio of the latencies (above 1: the other mixer is slower) and their difference, with 95 % "
    "intervals; parameters and MACs are exact, and the allocator's peak is the largest over the launches, so these "
    "have no interval."
)
ONE_LAUNCH = " Intervals of one launch say nothing of the next: these lines are provisional."


def mixer_exchange(answers: Answers) -> list[Section]:
    """The section with a line a network, other mixer and setting; nothing where no network was run with two mixers."""
    rows = answers.exchanges
    if rows.empty:
        return []
    rows = rows.sort_values(["run", "network", "lowering", "device", "dtype", "step", "resolution", "batch", "other"])
    note = NOTE + ONE_LAUNCH * bool((rows["interval"] == "within-launch").any())
    names = [*["run"] * answers.several_runs, "lowering", "device", "dtype", *step_column(rows), "batch"]
    return section("The mixer exchanged", note, Table(tuple(_cells(row, names) for _, row in rows.iterrows())))


def _cells(row: pd.Series, names: list[str]) -> dict[str, str]:
    ok = row["status"] == "ok"
    difference = (row[f"difference_{end}ms"] for end in ("", "low_", "high_"))
    return {
        "network": row["network"],
        "mixer": f"{row['other']} for {row['own']}",
        **{name: words(row[name]) for name in names},
        "at": in_words("resolution", row["resolution"]),
        "window": number(row["window"]),
        "latency, own (ms)": number(row["own_ms"]),
        "other (ms)": number(row["other_ms"]),
        "ratio": bounded(row["ratio"], row["ratio_low"], row["ratio_high"]) + " (host-bound)" * bool(row["host_bound"])
        if ok
        else row["status"],
        "of floor, own": of_floor(row["own_share"]),
        "other of floor": of_floor(row["other_share"]),
        "difference (ms)": bounded(*difference) if ok else "",
        **{title: _signed(row[name], unit) for name, (title, unit) in COUNTS.items()},
    }


def _signed(value: Any, divisor: float) -> str:
    return "" if pd.isna(value) else "+" * bool(value > 0) + number(value, divisor)
