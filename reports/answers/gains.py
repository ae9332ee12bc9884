"""How many times as fast a case is as the same case elsewhere: under eager, or in the first of several runs."""

import numpy as np
import pandas as pd

from mixprof.reports.answers.ratios import beside
from mixprof.reports.latencies import RATIO, ratio

IDENTITY = ["run", "model", "lowering", "device", "dtype", "layout", "mode", "batch", "height", "width", "window"]
IDENTITY += ["channels"]
GAIN = ("gain", "gain_low", "gain_high")


def gains(frame: pd.DataFrame, column: str, base: str) -> pd.DataFrame:
    """`gain`, `gain_low`, `gain_high` for each row of the frame: the latency of `base` over the row's own.

    The base of a row is the same case with `base` in `column`. Missing for the bases themselves and where either
    was not measured; the bounds are missing where either has no interval.
    """
    rows = frame.reset_index(drop=True)
    both = beside(rows[rows[column] == base], rows[rows[column] != base], [n for n in IDENTITY if n != column])
    gained = pd.DataFrame(np.nan, index=rows.index, columns=list(GAIN))
    compared = ratio(rows, both["top"].to_numpy(), both["bottom"].to_numpy())
    gained.loc[both["bottom"]] = compared[list(RATIO[:3])].to_numpy()
    return gained.set_axis(frame.index)
