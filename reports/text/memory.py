"""How well a peak of memory was predicted: the plan's figure beside the measured one."""

from __future__ import annotations

import pandas as pd

from mixprof.reports.frame import ANCHOR
from mixprof.reports.text.markdown import number, table

MISS = 0.10  # relative
SMALL_BYTES = 2**20
MEBIBYTE = 2**20
CAUSES = {
    "small": "below 1 MiB: oneDNN's constant scratch of about 12 KiB a convolution",
    "dtype": "workspaces of half-precision kernels are not modelled",
    "unknown": "unexplained",
}


def prediction_table(frame: pd.DataFrame) -> list[str]:
    """Predicted and measured allocator peak of each eager case on the CPU, and the cause where they differ."""
    known = frame["predicted_peak_bytes"].notna() & frame["allocator_peak_bytes"].notna()
    eager = (frame["lowering"] == "eager") & (frame["device"] == "cpu") & (frame["model"] != ANCHOR)
    cases = frame[known & eager & (frame["status"] == "ok")]
    if cases.empty:
        return []
    ratios = cases["predicted_peak_bytes"] / cases["allocator_peak_bytes"]
    missed = int(((ratios - 1).abs() > MISS).sum())
    said = f"{len(cases) - missed} of {len(cases)} within {MISS:.0%}, ratios {ratios.min():.3f} to {ratios.max():.3f}."
    return ["## Predicted memory (eager, allocator peak)", said, table(_row(case) for _, case in cases.iterrows())]


def _row(case: pd.Series) -> dict[str, str]:
    ratio = case["predicted_peak_bytes"] / case["allocator_peak_bytes"]
    return {
        "model": case["model"],
        "dtype": case["dtype"],
        "batch": str(case["batch"]),
        "resolution": case["resolution"],
        "window": number(case["window"]),
        "predicted (MiB)": number(case["predicted_peak_bytes"], MEBIBYTE),
        "measured (MiB)": number(case["allocator_peak_bytes"], MEBIBYTE),
        "predicted / measured": f"{ratio:.3f}",
        "cause": "" if abs(ratio - 1) <= MISS else CAUSES[_cause(case)],
    }


def _cause(case: pd.Series) -> str:
    if case["dtype"] not in ("float32", "tf32"):
        return "dtype"
    return "small" if case["allocator_peak_bytes"] < SMALL_BYTES else "unknown"
