"""Where training turns a verdict around: who is faster in inference, beside who is in each step of training."""

import numpy as np
import pandas as pd

from mixprof.data.case import STEP
from mixprof.reports.answers.crossovers import comparable
from mixprof.reports.answers.ratios import SAME, beside
from mixprof.reports.latencies import RATIO, ratio

SETTING = [name for name in SAME if name not in ("window", "dtype", "step")]  # equal of both models and steps
COLUMNS = [*SAME, "first", "second", *RATIO, *(f"inference_{name}" for name in RATIO[:3]), "turn"]
TURNED, KEPT, OPEN = "turned", "kept", "not decided"


def turns(cases: pd.DataFrame) -> pd.DataFrame:
    """A row per two models of a kind, setting and step of training that both were timed in, as in inference.

    SAME, `first` (faster in inference, by its estimate) and `second`, RATIO: the latency of the second over the
    first's in this step; `inference_ratio` and its bounds, at least 1; `turn`: "turned" where both intervals leave out
    1 on opposite sides, "kept" where on the same, else "not decided". An automatic mixed precision stands beside
    inference in the dtype that it mixes in.
    """
    rows = comparable(cases)
    if rows.empty or (rows["step"] == STEP).all():
        return pd.DataFrame(columns=COLUMNS)
    compared = _compared(rows)
    inference, training = (compared[(compared["step"] == STEP) == is_inference] for is_inference in (True, False))
    keys = [*SETTING, "window", "mixed", "first", "second"]
    inference = inference[[*keys, *RATIO[:3]]].rename(columns={name: f"inference_{name}" for name in RATIO[:3]})
    both = _turned_over(training.merge(inference, on=keys))
    both["turn"] = np.select([_decided(both, -1), _decided(both, 1)], [TURNED, KEPT], OPEN)
    return both[COLUMNS].reset_index(drop=True)


def _compared(rows: pd.DataFrame) -> pd.DataFrame:
    """The ratio of every two models in every setting and step. A model without a window meets all windows."""
    both = beside(rows, rows, [*SETTING, "dtype", "step"])
    names = (rows["model"].to_numpy()[both[side]] for side in ("top", "bottom"))
    both["second"], both["first"] = names
    windows = [rows["window"].iloc[both[side]].reset_index(drop=True) for side in ("top", "bottom")]
    both["window"] = windows[0].fillna(windows[1])
    same = (windows[0] == windows[1]) | windows[0].isna() | windows[1].isna()
    both = both[(both["first"] < both["second"]) & same.fillna(True).astype(bool)].reset_index(drop=True)
    both["mixed"] = both["dtype"].str.removeprefix("amp_")
    return pd.concat([both, ratio(rows, both["top"].to_numpy(), both["bottom"].to_numpy())], axis=1)


def _turned_over(both: pd.DataFrame) -> pd.DataFrame:
    """The model that is faster in inference comes first."""
    over = both["inference_ratio"] < 1
    turned = both.assign(
        first=both["second"].where(over, both["first"]), second=both["first"].where(over, both["second"])
    )
    for begin in ("", "inference_"):
        value, low, high = (both[f"{begin}{name}"] for name in RATIO[:3])
        ends = {"ratio": 1 / value, "ratio_low": 1 / high, "ratio_high": 1 / low}
        for name, other in ends.items():
            turned[f"{begin}{name}"] = other.where(over, both[f"{begin}{name}"])
    return turned


def _decided(both: pd.DataFrame, side: int) -> pd.Series:
    """Where inference is decided, and the step on this side of 1: 1 for the same winner, -1 for the other."""
    own = both["ratio_low"] > 1 if side == 1 else both["ratio_high"] < 1
    return (both["inference_ratio_low"] > 1) & own
