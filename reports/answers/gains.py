"""How many times as fast a case is as the same case elsewhere: under eager, or in the first of several runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from mixprof.reports.answers.ratios import SIDE, between

IDENTITY = ["run", "model", "lowering", "device", "dtype", "layout", "mode", "batch", "height", "width", "window"]
IDENTITY += ["channels"]
GAIN = ("gain", "gain_low", "gain_high")


def gains(frame: pd.DataFrame, column: str, base: str) -> pd.DataFrame:
    """`gain`, `gain_low`, `gain_high` for each row of the frame: the latency of `base` over the row's own.

    The base of a row is the same case with `base` in `column`. Missing for the bases themselves and where either
    was not measured; the bounds are missing where either has no interval.
    """
    keys = [name for name in IDENTITY if name != column]
    bases = frame.loc[frame[column] == base, [*keys, *SIDE]]
    both = frame[[*IDENTITY, *SIDE]].merge(bases, on=keys, how="left", suffixes=("_bottom", "_top"))
    found = [(None,) * 3 if row[column] == base else _gain(row) for row in both.to_dict("records")]
    return pd.DataFrame(found, columns=list(GAIN), index=frame.index, dtype="float64")


def _gain(row: Mapping[Any, Any]) -> tuple[float | None, ...]:
    bounds = between(row)
    if bounds is None:
        return row["latency_ms_top"] / row["latency_ms_bottom"], None, None
    return bounds.estimate, bounds.low, bounds.high
