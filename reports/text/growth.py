"""How cost grows and where models swap places, as Markdown."""

from typing import Any

import pandas as pd

from mixprof.reports.answers import Answers
from mixprof.reports.answers.exponents import COLUMNS
from mixprof.reports.answers.slices import in_words, lowering_order
from mixprof.reports.text.markdown import Part, Section, Table, bounded, number, section, words

SETTING = [*COLUMNS[: COLUMNS.index("metric")], "axis"]
GROWTH_METHOD = (
    "An exponent is the slope of log cost against log side, batch or window: a cost that grows with the area of the "
    "map has 2 along its side. Its 95 % interval is a t interval over launches (variances of the points' means added, "
    "as in a ratio); memory and FLOPs are counts and have none. FLOPs and expected memory are exact, "
    "over the same points. Points below `flat below` are left out of the exponent: two segments are preferred to one "
    "where the F test of the broken line against the straight one passes 1 % over all places of the break together, "
    "the slope rises by at least 0.25, and the left slope is at most half of the right one. `curved`: the points used "
    "still deviate from their line by more than their launches do (F test of lack of fit, 1 %), so that the exponent "
    "sums up a slope that changes. `left out` counts what was not ok, not measured, or on a GPU bound by the host's "
    "enqueueing. Two points make an exponent, too, without a word on whether it is one."
)
CROSSOVER_METHOD = (
    "A crossover lies between two points at which the ratio of latencies is decided with opposite signs (5 % over all "
    "points of the line together); its place is interpolated in log-log, its interval every place at which the 95 % "
    "interval of the ratio holds 1. `mixprof sweep --refine crossover` measures in between."
)


def growth(answers: Answers) -> list[Section]:
    """The section on exponents, a table an axis; nothing where no line has two places."""
    rows = answers.exponents
    if rows.empty:
        return []
    parts: list[Part] = [GROWTH_METHOD]
    for axis in rows["axis"].unique():
        parts += [f"### Exponents along {axis}", growth_table(rows[rows["axis"] == axis])]
    return section("How cost grows", *parts)


def growth_table(exponents: pd.DataFrame) -> Table:
    """A line for each model and setting along one axis: latency, FLOPs and memory, and the gaps between them."""
    lines = wide(exponents)
    order = lines["lowering"].map(lowering_order)
    side = lines["resolution"].map(lambda name: float(str(name).split("x")[0]), na_action="ignore")
    ordered = ["run", "kind", "order", "model", "side", "batch", "window"]
    lines = lines.assign(order=order, side=side).sort_values(ordered)
    shown = [name for name in SETTING if name not in ("axis", "kind", "model", "lowering") and _differs(lines[name])]
    return Table(tuple(_growth_cells(line, shown) for _, line in lines.iterrows()))


def wide(exponents: pd.DataFrame) -> pd.DataFrame:
    """One row per line: the latency's columns, and the slope and expected slope of memory and FLOPs beside them."""
    text = exponents.astype(dict.fromkeys(SETTING, object))  # missing values are joined as equal ones
    sides = {metric: rows.drop(columns="metric") for metric, rows in text.groupby("metric")}
    joined = sides.get("latency", text.iloc[:0].drop(columns="metric"))
    for metric in ("memory", "flops"):
        names = {name: f"{metric}_{name}" for name in ("slope", "expected")}
        rows = sides.get(metric, text.iloc[:0])
        joined = joined.merge(rows[[*SETTING, *names]].rename(columns=names), on=SETTING, how="outer")
    return joined


def _differs(values: pd.Series) -> bool:
    return values.nunique(dropna=False) > 1


def _growth_cells(line: pd.Series, shown: list[str]) -> dict[str, str]:
    flops = line["expected"] if not pd.isna(line["expected"]) else line["flops_slope"]
    return {
        "model": line["model"],
        "lowering": line["lowering"],
        **{name: words(line[name]) for name in shown},
        "latency": interval_text(line),
        "FLOPs": _slope(flops),
        "latency - FLOPs": _slope(line["slope"] - flops, signed=True),
        "memory": _slope(line["memory_slope"]),
        "expected memory": _slope(line["memory_expected"]),
        "memory - FLOPs": _slope(line["memory_slope"] - line["flops_slope"], signed=True),
        "flat below": number(line["breakpoint"]),
        "over": "" if pd.isna(line["start"]) else f"{number(line['start'])} to {number(line['end'])}",
        "points": number(line["points"]),
        "left out": number(line["excluded"] or None),
        "bound": "" if pd.isna(line["bound"]) else str(line["bound"]),
        "note": _note(line),
    }


def _note(line: pd.Series) -> str:
    curved = not pd.isna(line["curved"]) and bool(line["curved"])
    host_bound = 0 if pd.isna(line["host_bound"]) else int(line["host_bound"])
    return ", ".join(["curved"] * curved + [f"{host_bound} bound by enqueueing"] * (host_bound > 0))


def _slope(value: Any, signed: bool = False) -> str:
    return "" if pd.isna(value) else f"{value:{'+' if signed else ''}.2f}"


def interval_text(line: pd.Series) -> str:
    """ "1.98 [1.95, 2.01]"; without the bounds where one launch gave none."""
    bounds = "" if pd.isna(line["low"]) else f" [{line['low']:.2f}, {line['high']:.2f}]"
    return _slope(line["slope"]) + bounds


def crossings(answers: Answers) -> list[Section]:
    """The section on crossovers; nothing where no two models were run in the same settings."""
    rows = answers.crossovers
    if not answers.comparable:
        return []
    if rows.empty:
        return section("Crossovers", "No two models swap places along any axis beyond doubt.", CROSSOVER_METHOD)
    rows = rows.assign(order=rows["lowering"].map(lowering_order))
    ordered = rows.sort_values(["axis", "first", "second", "order"], kind="stable")
    shown = [name for name in ("run", "device", "dtype", "layout", "mode", "step") if _differs(rows[name])]
    cells = tuple(_crossing_cells(row, shown) for _, row in ordered.iterrows())
    return section("Crossovers", CROSSOVER_METHOD, Table(cells))


def _crossing_cells(row: pd.Series, shown: list[str]) -> dict[str, str]:
    fixed = [name for name in ("channels", "resolution", "batch", "window") if not pd.isna(row[name])]
    return {
        **{name: str(row[name]) for name in shown},
        "lowering": row["lowering"],
        "faster below": row["first"],
        "faster beyond": row["second"],
        "along": row["axis"],
        "at": bounded(row["place"], row["low"], row["high"]),
        "where": ", ".join(in_words(name, words(row[name])) for name in fixed),
        "note": "one launch: provisional" if row["interval"] == "within-launch" else "",
    }
