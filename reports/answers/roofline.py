"""The roofline of a run: cases under the roofs that were measured on the same device."""

import pandas as pd

from mixprof.reports.frame import ANCHOR

ROOFS = ["run", "device", "dtype", "matrix_flops_per_s", "vector_flops_per_s", "copy_bytes_per_s"]


def rooflines(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of a frame that have a place under a roof."""
    known = frame[["attainable_share", "intensity", "latency_ms"]].notna().all(axis=1)
    return frame[known & (frame["status"] == "ok") & (frame["model"] != ANCHOR)]


def roofs(frame: pd.DataFrame) -> pd.DataFrame:
    """The measured peaks of each run, device and dtype; ROOFS."""
    return frame[ROOFS].dropna().drop_duplicates()
