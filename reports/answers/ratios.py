"""The comparisons the suite is for: attention over convolution, all else equal, with an interval for the ratio."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from scipy.special import stdtrit

from mixprof.sampling import BATCHES, Interval

SAME = ["run", "lowering", "device", "dtype", "layout", "mode", "batch", "resolution", "height", "width", "window"]
SAME += ["channels", "kind"]
SIDE = ["status", "latency_ms", "latency_low_ms", "latency_high_ms", "interval", "launches"]

METHOD = (
    "A ratio is latency over latency, above 1 when attention is the slower one. Its interval is Welch's 95 % t "
    "interval for the difference of the two mean logarithms (variances added, degrees of freedom after Satterthwaite), "
    "each side's variance being that of its own latency interval, the two taken as independent. An interval that holds "
    "1 is undecided. Each interval stands alone: with many settings, about one in twenty misses its true ratio."
)


@dataclass(frozen=True)
class Pair:
    """Two models whose latencies are divided, `attention` over `convolution`."""

    attention: str
    convolution: str
    fairness: str  # what differs between the two


MIXER_ONLY, PUBLISHED = "only the mixer differs", "two networks as published"
PAIRS = (
    Pair("window_attention", "depthwise_conv", "the two mixers by themselves"),
    *(Pair(name, f"{name}:mixer=depthwise_conv", MIXER_ONLY) for name in ("swin_t", "swin_s", "swin_b")),
    *(Pair(f"{name}:mixer=window_attention", name, MIXER_ONLY) for name in ("dwnet_t", "dwnet_b")),
    Pair("swin_t", "dwnet_t", PUBLISHED),
    Pair("swin_b", "dwnet_b", PUBLISHED),
)


def ratios(frame: pd.DataFrame, pair: Pair) -> pd.DataFrame:
    """One row per setting that both models of the pair have a record of.

    SAME, then `status` ("ok", or the first status that is not, attention's before
    convolution's), `ratio`, `ratio_low`, `ratio_high`, `interval`, and `faster`:
    a model's name, "undecided", or missing where there is no interval.
    """
    attention = frame.loc[frame["model"] == pair.attention, [*SAME, *SIDE]]
    convolution = frame.loc[frame["model"] == pair.convolution, [*SAME, *SIDE]]
    both = attention.merge(convolution, on=SAME, suffixes=("_top", "_bottom"))
    compared = pd.DataFrame([_compare(row, pair) for row in both.to_dict("records")], columns=COMPARED, dtype=object)
    numbers = dict.fromkeys(("ratio", "ratio_low", "ratio_high"), "float64")
    return pd.concat([both[SAME], compared.astype(numbers)], axis=1)


COMPARED = ["status", "ratio", "ratio_low", "ratio_high", "interval", "faster"]


def _compare(row: Mapping[Any, Any], pair: Pair) -> tuple[object, ...]:
    status = row["status_bottom"] if row["status_top"] == "ok" else row["status_top"]
    ratio = row["latency_ms_top"] / row["latency_ms_bottom"]
    bounds = between(row)
    if bounds is None:
        return status, ratio, None, None, None, None
    over_launches = row["interval_top"] == row["interval_bottom"] == "launches"
    kind = "launches" if over_launches else "within-launch"
    return status, bounds.estimate, bounds.low, bounds.high, kind, _faster(bounds, pair)


def between(row: Mapping[Any, Any]) -> Interval | None:
    """The ratio of the latencies of a row's two sides, "top" over "bottom"; None where either has no interval."""
    if not (_has_interval(row, "top") and _has_interval(row, "bottom")):
        return None
    return ratio_interval(*_side(row, "top"), *_side(row, "bottom"))


def _faster(bounds: Interval, pair: Pair) -> str:
    if bounds.low > 1:
        return pair.convolution
    return pair.attention if bounds.high < 1 else "undecided"


def _has_interval(row: Mapping[Any, Any], side: str) -> bool:
    return bool(row[f"latency_low_ms_{side}"] > 0)  # a within-launch bound may fall below zero


def _side(row: Mapping[Any, Any], side: str) -> tuple[Interval, int]:
    """The latency of one side and the degrees of freedom of its interval."""
    bounds = Interval(*(float(row[f"{name}_{side}"]) for name in ("latency_ms", "latency_low_ms", "latency_high_ms")))
    one_launch = row[f"interval_{side}"] == "within-launch"
    return bounds, (BATCHES if one_launch else int(row[f"launches_{side}"])) - 1


def ratio_interval(top: Interval, top_freedom: int, bottom: Interval, bottom_freedom: int) -> Interval:
    """95 % interval of top / bottom from their own t intervals in log units (Welch 1947, Satterthwaite 1946)."""
    top_variance = _log_error(top, top_freedom) ** 2
    bottom_variance = _log_error(bottom, bottom_freedom) ** 2
    variance = top_variance + bottom_variance
    ratio = top.estimate / bottom.estimate
    if variance == 0:
        return Interval(ratio, ratio, ratio)
    freedom = variance**2 / (top_variance**2 / top_freedom + bottom_variance**2 / bottom_freedom)
    factor = math.exp(float(stdtrit(freedom, 0.975)) * math.sqrt(variance))
    return Interval(ratio, ratio / factor, ratio * factor)


def _log_error(bounds: Interval, freedom: int) -> float:
    """The standard error of the log that a 95 % t interval was made of."""
    return math.log(bounds.high / bounds.low) / 2 / float(stdtrit(freedom, 0.975))
