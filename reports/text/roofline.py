"""How near each case came to what its device can do, and how well its memory was predicted."""

import pandas as pd

from mixprof.data.case import ANCHORS
from mixprof.reports.answers import Answers
from mixprof.reports.answers.slices import in_words, step_column
from mixprof.reports.peaks import KEYS, RATES
from mixprof.reports.text.markdown import Section, Table, bullets, number, section, words
from mixprof.reports.text.measurements import ORDER

GIGA, MEBIBYTE = 1e9, 2**20
ROOFLINE_NOTE = (
    "Attainable is the longer of arithmetic at the roof of its unit (matrix products at that of a matrix product, "
    "depth-wise and other convolutions with few channels a group at that of vector multiply-adds) and of the least "
    "bytes (operands and results of every operator that multiplies, each once) at the rate of a copy beyond any cache. "
    "What fits a cache, or is fused, may exceed it."
)
MISS = 0.10  # relative: from there on a prediction of memory needs a cause


def roofline(answers: Answers) -> list[Section]:
    """The section with the intensity of each measured case, its bound and the share of what is attainable."""
    rows = answers.rooflines
    if rows.empty:
        return []
    shares = rows["attainable_share"]
    bound = ", ".join(f"{count} bound by {name}" for name, count in rows["bound"].value_counts().items())
    first = f"{len(rows)} cases: {bound}; they reach {shares.min():.0%} to {shares.max():.0%} of what is attainable. "
    names = [*["run"] * answers.several_runs, "lowering", "device", "dtype", *step_column(rows), "model", "batch"]
    cells = tuple(_cells(row, names) for _, row in rows.sort_values(ORDER).iterrows())
    return section("Roofline", first + ROOFLINE_NOTE, _roofs(answers.cases), Table(cells))


def _roofs(frame: pd.DataFrame) -> str:
    """The measured peaks of each run, device and dtype, as a list."""
    return bullets(
        f"{row['run']}, {row['device']}, {row['dtype']}: matrix product {number(row['matrix_flops_per_s'], GIGA)}, "
        f"vector multiply-add {number(row['vector_flops_per_s'], GIGA)} GFLOP/s, "
        f"copy {number(row['copy_bytes_per_s'], GIGA)} GB/s (read and written)."
        for _, row in frame[[*KEYS, *RATES]].dropna().drop_duplicates().iterrows()
    )


def _cells(row: pd.Series, names: list[str]) -> dict[str, str]:
    return {
        **{name: words(row[name]) for name in names},
        "at": in_words("resolution", row["resolution"]),
        "window": number(row["window"]),
        "FLOPs per byte": number(row["intensity"]),
        "GFLOP/s": number(row["gflops_per_s"]),
        "vector MACs": f"{row['vector_macs'] / row['macs']:.1%}" if row["macs"] else "",
        "bound": str(row["bound"]) + ", host-bound" * bool(row["host_bound"] is True),
        "attainable (ms)": number(row["attainable_ms"]),
        "of attainable": f"{row['attainable_share']:.0%}",
    }


def predicted_memory(answers: Answers) -> list[Section]:
    """The section with predicted and measured allocator peak of each eager case on the CPU, and the cause of a miss."""
    frame = answers.cases
    known = frame["predicted_peak_bytes"].notna() & frame["allocator_peak_bytes"].notna()
    eager = (frame["lowering"] == "eager") & (frame["device"] == "cpu") & ~frame["model"].isin(ANCHORS)
    cases = frame[known & eager & (frame["status"] == "ok")]
    if cases.empty:
        return []
    ratios = (cases["predicted_peak_bytes"] / cases["allocator_peak_bytes"]).astype(float)
    near = int(((ratios - 1).abs() <= MISS).sum())
    first = f"{near} of {len(cases)} within {MISS:.0%}, ratios {ratios.min():.3f} to {ratios.max():.3f}."
    cells = tuple(_predicted(case, ratios[place], step_column(cases)) for place, case in cases.iterrows())
    return section("Predicted memory (eager, allocator peak)", first, Table(cells))


def _predicted(case: pd.Series, ratio: float, step: list[str]) -> dict[str, str]:
    return {
        **{name: words(case[name]) for name in ("model", "dtype", *step, "batch", "resolution", "window")},
        "predicted (MiB)": number(case["predicted_peak_bytes"], MEBIBYTE),
        "measured (MiB)": number(case["allocator_peak_bytes"], MEBIBYTE),
        "predicted / measured": f"{ratio:.3f}",
        "cause": "" if abs(ratio - 1) <= MISS else _cause(case),
    }


def _cause(case: pd.Series) -> str:
    if case["dtype"] not in ("float32", "tf32"):
        return "workspaces of half-precision kernels are not modelled"
    small = "below 1 MiB: oneDNN's constant scratch of about 12 KiB a convolution"
    return small if case["allocator_peak_bytes"] < MEBIBYTE else "unexplained"
