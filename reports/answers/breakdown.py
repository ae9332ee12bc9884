"""Where an eager forward's time, multiply-accumulates and bytes go: by role, stage by stage."""

import json
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from mixprof.data.case import ANCHORS
from mixprof.reports.peaks import RATES

SETTING = ["run", "model", "lowering", "device", "dtype", "step", "batch", "resolution", "window", "channels"]
MIXER = "mixer"
FLOPS = 2  # a multiply-accumulate is as many
AMOUNTS = {"ms": "time", "macs": "MACs", "bytes": "bytes moved"}


def breakdown(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per case, stage and role, for the cases that were broken down (`mixprof sweep --layers`, eager).

    SETTING, `stage` (missing outside of stages), `role`, `ms`, `macs`, `bytes`, `kernels`, and `floor_ms`, the longer
    of the part's arithmetic and of its operators' bytes at the run's peaks. Vector MACs are the mixer's.
    """
    known = frame[frame["breakdown"].notna() & ~frame["model"].isin(ANCHORS)]
    rows = [
        {**{name: row[name] for name in SETTING}, **part, "floor_ms": _floor_ms(row, part, parts)}
        for row in known.reindex(columns=[*SETTING, "breakdown", "vector_macs", *RATES]).to_dict("records")
        for parts in [json.loads(row["breakdown"])]
        for part in parts
    ]
    return pd.DataFrame(rows, columns=[*SETTING, "stage", "role", "ms", "macs", "bytes", "kernels", "floor_ms"])


def _floor_ms(row: Mapping[Hashable, Any], part: Mapping[str, Any], parts: Sequence[Mapping[str, Any]]) -> float:
    """The floor of one part; not a number where the run's peaks are unknown."""
    if any(pd.isna(row[name]) for name in ("vector_macs", *RATES)):
        return float("nan")
    of_mixers = sum(each["macs"] for each in parts if each["role"] == MIXER)
    share = min(1.0, row["vector_macs"] / of_mixers) if part["role"] == MIXER and of_mixers else 0.0
    vector = share * part["macs"]
    matrix_s = FLOPS * (part["macs"] - vector) / row["matrix_flops_per_s"]
    return 1000 * max(matrix_s + FLOPS * vector / row["vector_flops_per_s"], part["bytes"] / row["copy_bytes_per_s"])
