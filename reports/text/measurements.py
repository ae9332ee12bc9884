"""Every case of a run: those that are ok with their intervals, the others with their reasons."""

from collections.abc import Iterable

import pandas as pd

from mixprof.reports.answers import Answers
from mixprof.reports.answers.slices import all_in_words, lowering_order
from mixprof.reports.text.engines import built_only
from mixprof.reports.text.markdown import ORDER, Part, Section, Table, number, of_floor, section, words

RARELY_VARIED = ("device", "layout", "mode", "step")
MEBIBYTE, BILLION = 2**20, 1e9


SIMULATED = "**Simulated**: no time in here was measured; they are those of `sim:0`, a GPU that does not exist."


def counts_in_words(frame: pd.DataFrame) -> str:
    """ "9 cases: 8 ok, 1 oom.", and plainly so when nothing was ok, or all is simulated."""
    return f"{SIMULATED}\n\n{_counts(frame)}" if frame["simulated"].any() else _counts(frame)


def _counts(frame: pd.DataFrame) -> str:
    counts = frame["status"].value_counts()
    if frame.empty:
        return "No case has a record: nothing was measured."
    listed = f"{len(frame)} cases: {', '.join(f'{count} {status}' for status, count in counts.items())}."
    if counts.get("ok"):
        return listed
    nothing = "**Engines were built and none was run**" if counts.get("built") else "**Nothing was ok**"
    return f"{nothing}, so there is no latency to show. {listed}"


def measurements(answers: Answers) -> list[Section]:
    """The section on cases that are ok, a table per lowering (and run)."""
    ok = answers.cases[answers.cases["status"] == "ok"].sort_values(ORDER)
    parts: list[Part] = [*constants(ok)]
    names = varying(ok)
    for run, of_run in ok.groupby("run"):
        for lowering in sorted(of_run["lowering"].unique(), key=lowering_order):
            rows = of_run[of_run["lowering"] == lowering]
            parts.append(f"### {lowering}" + (f", run {run}" if ok["run"].nunique() > 1 else ""))
            parts.append(f"Latency is `{' and '.join(rows['time'].unique())}`, with its 95 % interval.")
            parts.append(Table(tuple(_ok_cells(row, names) for _, row in rows.iterrows())))
    return section("Measurements", *parts)


def _ok_cells(row: pd.Series, names: Iterable[str]) -> dict[str, str]:
    at_least = "" if pd.isna(row["counts_exact"]) or row["counts_exact"] else "≥ "
    return {
        **{name: words(row[name]) for name in names},
        "latency (ms)": latency_text(row),
        **_of_host(row),
        "of floor": of_floor(row["attainable_share"]),
        "launches": number(row["launches"]),
        "images/s": number(row["images_per_s"]),
        "over anchor": number(row["anchor_ratio"]),
        "GFLOPs": at_least + number(row["flops"], BILLION) if not pd.isna(row["flops"]) else "",
        "peak (MiB)": number(row["allocator_peak_bytes"], MEBIBYTE),
        "relative error": "" if pd.isna(row["relative_error"]) else f"{row['relative_error']:.1e}",
    }


def _of_host(row: pd.Series) -> dict[str, str]:
    """The times of a GPU's case beside that of its device."""
    if row["time"] != "gpu_ms":
        return {}
    return {"request (ms)": number(row["request_ms"]), "enqueue (ms)": number(row["enqueue_ms"])}


def latency_text(row: pd.Series) -> str:
    """ "1.21 [1.19, 1.23]", and of one that waits for its host how long enqueueing takes."""
    bounds = "" if pd.isna(row["latency_low_ms"]) else " [{}, {}]"
    latency = number(row["latency_ms"]) + bounds.format(number(row["latency_low_ms"]), number(row["latency_high_ms"]))
    if pd.isna(row["host_bound"]) or not row["host_bound"]:
        return latency
    return f"{latency} host-bound: {number(row['enqueue_ms'])} to enqueue"


def varying(rows: pd.DataFrame) -> list[str]:
    """The settings that a table needs a column for."""
    names = ("model", "lowering", "dtype", "batch", "resolution", "window", "channels", *RARELY_VARIED)
    return [name for name in names if name not in RARELY_VARIED or rows[name].nunique() > 1]


def constants(rows: pd.DataFrame) -> list[str]:
    """One sentence with what `varying` leaves out."""
    same = {name: rows[name].iloc[0] for name in RARELY_VARIED if rows[name].nunique() == 1}
    return [f"All of these: {text}."] if (text := all_in_words(same)) else []


def failures(answers: Answers) -> list[Section]:
    """The section on cases that are not ok, each with its reason; engines that were built alone have another."""
    rows = answers.cases[(answers.cases["status"] != "ok") & ~built_only(answers.cases)]
    if rows.empty:
        return []
    names = [*["run"] * (rows["run"].nunique() > 1), *varying(rows), "status"]
    cells = (
        {**{name: words(row[name]) for name in names}, "reason": row["reason"] or "none was recorded"}
        for _, row in rows.sort_values(["status", *ORDER]).iterrows()
    )
    none = "They are in no ranking, ratio or curve."
    return section("Cases that are not ok", none, *constants(rows), Table(tuple(cells)))
