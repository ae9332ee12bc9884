"""What each engine gives of one model in one setting: latency, cold start, bytes, accuracy, memory."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mixprof.data.case import ANCHORS
from mixprof.reports.answers.slices import alike, lowering_order
from mixprof.reports.latencies import ratio

SAME = ["run", "model", "device", "mode", "step", "batch", "resolution", "window", "channels"]
ENGINE = ["lowering", "dtype", "layout"]
FIGURES = ["latency_ms", "latency_low_ms", "latency_high_ms", "cold_start_s", "load_s", "first_ms", "artifact_bytes"]
FIGURES += ["host_bound", "product_dtypes", "integer_products", "relative_error", "sqnr_db", "deployed_peak_bytes"]
BEST = ["best_latency", "best_cold_start", "best_bytes"]
LEAST_LAUNCHES = 3  # of each of two engines: that all of one are shorter is then 1 in 20 by chance


def engines(cases: pd.DataFrame) -> pd.DataFrame:
    """A row per engine, of every setting in which two or more were ok and one has an artifact.

    SAME, ENGINE, FIGURES, and BEST: whether a figure is decidedly the best of its setting. A latency is where its ratio
    to every other has an interval without 1, a cold start where its longest is shorter than every other's shortest.
    """
    ok = cases[cases["status"] == "ok"].reset_index(drop=True)
    ok = ok[~ok["model"].isin(ANCHORS)].reset_index(drop=True)
    parts = []
    for _, positions in alike(ok, SAME):
        rows = ok.iloc[positions].reset_index(drop=True)
        if len(rows) < 2 or rows["artifact_bytes"].isna().all():
            continue
        order = sorted(range(len(rows)), key=lambda row: (*lowering_order(rows["lowering"].iloc[row]), row))
        part = rows[[*SAME, *ENGINE, *FIGURES]].assign(
            best_latency=_fastest(rows),
            best_cold_start=_shortest(rows["cold_starts_s"]),
            best_bytes=_smallest(rows["artifact_bytes"]),
        )
        parts.append(part.iloc[order])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*SAME, *ENGINE, *FIGURES, *BEST])


def _fastest(rows: pd.DataFrame) -> list[bool]:
    best = int(np.argmin(rows["latency_ms"].to_numpy(dtype=float)))
    others = np.array([row for row in range(len(rows)) if row != best])
    decided = bool((ratio(rows, others, np.full(len(others), best))["ratio_low"] > 1).all())
    return [decided and row == best for row in range(len(rows))]


def _shortest(cells: pd.Series) -> list[bool]:
    """Of the cold starts of each engine, comma-separated; engines without any are not compared."""
    starts = [[float(start) for start in cell.split(", ")] if isinstance(cell, str) else [] for cell in cells]
    return [
        len(own) >= LEAST_LAUNCHES
        and sum(map(bool, starts)) > 1
        and all(max(own) < min(other) for place, other in enumerate(starts) if place != row and other)
        for row, own in enumerate(starts)
    ]


def _smallest(sizes: pd.Series) -> list[bool]:
    known = sizes.dropna()
    alone = len(known) > 1 and (known == known.min()).sum() == 1
    return [bool(alone and not pd.isna(size) and size == known.min()) for size in sizes]
