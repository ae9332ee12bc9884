"""The result in words: which of attention and convolution is faster where, and how sure that is."""

from __future__ import annotations

import pandas as pd

from mixprof.reports.answers.ratios import PAIRS, Pair, ratios
from mixprof.reports.answers.slices import in_words
from mixprof.reports.text.markdown import cell, table

TOGETHER = ["run", "lowering", "device", "dtype", "layout", "mode"]  # what one sentence speaks of
ALONG = ["height", "width", "batch", "window", "channels"]


def headline(frame: pd.DataFrame) -> list[str]:
    """One sentence per pair of models and way of running them."""
    if only_built(frame):
        return ["## Who is faster", "Nothing was run, so nothing is known of it."]
    several = frame["run"].nunique() > 1
    lines = []
    for pair in PAIRS:
        for names, rows in ratios(frame, pair).groupby(TOGETHER, sort=False):
            where = ", ".join(map(str, names if several else names[1:]))
            lines.append(f"- **{_models(pair)}**, {cell(where)}: {sentence(rows, pair)}.")
    if not lines:
        return ["## Who is faster", "No pair of attention and convolution was run in the same setting."]
    return ["## Who is faster", "\n".join(lines)]


def only_built(frame: pd.DataFrame) -> bool:
    """Whether engines were built and no case was timed."""
    return bool((frame["status"] == "built").any() and not (frame["status"] == "ok").any())


def sentence(rows: pd.DataFrame, pair: Pair) -> str:
    """The one ratio there is, or how often each is faster and the two ends of the range; and what has no ratio."""
    known = rows[rows["ratio"].notna()].sort_values("ratio")
    missing = rows.loc[rows["ratio"].isna(), "status"].value_counts()
    parts = [_one(known.iloc[0]) if len(known) == 1 else _many(known, pair)] if len(known) else []
    if (known["interval"] == "within-launch").any():
        parts.append("one launch, so the interval says nothing of the next and this is provisional")
    parts += [f"{count} without a ratio ({status})" for status, count in missing.items()]
    return "; ".join(parts)


def _one(row: pd.Series) -> str:
    return f"{ratio_text(row)} at {setting(row)}, {verdict(row)}"


def _many(rows: pd.DataFrame, pair: Pair) -> str:
    counts = {name: int((rows["faster"] == name).sum()) for name in (pair.convolution, pair.attention, "undecided")}
    counts["without an interval"] = int(rows["faster"].isna().sum())
    wins = f"{cell(pair.convolution)} is faster in {counts.pop(pair.convolution)} of {len(rows)} settings, "
    wins += f"{cell(pair.attention)} in {counts.pop(pair.attention)}"
    rest = "".join(f", {count} {name}" for name, count in counts.items() if count)
    first, last = (f"{ratio_text(rows.iloc[end])} at {setting(rows.iloc[end])}" for end in (0, -1))
    return f"{wins}{rest}; from {first} to {last}"


def pair_tables(frame: pd.DataFrame) -> list[str]:
    """Every ratio that there is, a table per pair."""
    if only_built(frame):
        return []
    parts = []
    several = frame["run"].nunique() > 1
    for pair in PAIRS:
        rows = ratios(frame, pair).sort_values([*TOGETHER, *ALONG])
        if len(rows):
            parts += [
                f"### {_models(pair)} ({pair.fairness})",
                table(_cells(row, several) for _, row in rows.iterrows()),
            ]
    return ["## Attention over convolution, setting by setting", *parts] if parts else []


def _cells(row: pd.Series, several_runs: bool) -> dict[str, str]:
    names = (
        *["run"] * several_runs,
        "lowering",
        "device",
        "dtype",
        "layout",
        "mode",
        "batch",
        "resolution",
        "window",
        "channels",
    )
    cells = {name: "" if pd.isna(row[name]) else str(row[name]) for name in names}
    has_ratio = not pd.isna(row["ratio"])
    return {**cells, "ratio": ratio_text(row) if has_ratio else row["status"], "faster": verdict(row)}


def verdict(row: pd.Series) -> str:
    if pd.isna(row["ratio"]):
        return ""
    if pd.isna(row["faster"]):
        return "no interval"
    return "undecided" if row["faster"] == "undecided" else f"{row['faster']} is faster"


def ratio_text(row: pd.Series) -> str:
    """ "2.1x [1.9, 2.3]"."""
    if pd.isna(row["ratio_low"]):
        return f"{row['ratio']:.3g}x"
    return f"{row['ratio']:.3g}x [{row['ratio_low']:.3g}, {row['ratio_high']:.3g}]"


def setting(row: pd.Series) -> str:
    """ "56x56, batch 1, window 7, 96 channels"."""
    names = ("resolution", "batch", "window", "channels")
    return ", ".join(in_words(name, row[name]) for name in names if not pd.isna(row[name]))


def _models(pair: Pair) -> str:
    return f"{cell(pair.attention)} / {cell(pair.convolution)}"
