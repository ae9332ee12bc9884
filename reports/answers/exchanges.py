"""One network with its own mixer and with another: latencies, parameters, MACs and memory compared."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from scipy.special import stdtrit

from mixprof.reports.answers.ratios import ratio_interval
from mixprof.sampling import BATCHES, Interval

# The mixer that a network has by itself: what a name without `mixer=` stands for.
OWN = {
    **dict.fromkeys(("swin_t", "swin_s", "swin_b"), "window_attention"),
    **dict.fromkeys(("dwnet_t", "dwnet_b"), "depthwise_conv"),
    **dict.fromkeys(("dynamic_dwnet_t", "dynamic_dwnet_b"), "dynamic_depthwise_conv"),
    **dict.fromkeys(("i_dynamic_dwnet_t", "i_dynamic_dwnet_b"), "inhomogeneous_depthwise_conv"),
}
SAME = ["run", "lowering", "device", "dtype", "layout", "mode", "batch", "resolution"]
COUNTED = ("params", "macs", "allocator_peak_bytes")
COLUMNS = [
    *(*SAME, "window", "network", "own", "other", "status", "own_ms", "other_ms"),
    *("ratio", "ratio_low", "ratio_high", "difference_ms", "difference_low_ms", "difference_high_ms", "interval"),
    *COUNTED,
]


def exchanges(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per network, other mixer and setting that both were run in.

    SAME, `window`, `network`, `own`, `other`, `status` ("ok", or the first that is not, the own mixer's first), the
    latencies, `ratio`, `ratio_low`, `ratio_high`, `difference_ms` with its bounds, `interval` ("launches",
    "within-launch" or missing), and the difference of each count, other minus own, as `params`, `macs`,
    `allocator_peak_bytes`.
    """
    rows = frame[frame["model"].str.split(":").str[0].isin(OWN)].reset_index(drop=True)
    if rows.empty:
        return pd.DataFrame(columns=COLUMNS)
    parts = [_parts(model) for model in rows["model"]]
    rows = rows.assign(network=[part[0] for part in parts], mixer=[part[1] for part in parts])
    is_own = rows["mixer"] == rows["network"].str.split(":").str[0].map(OWN)
    both = rows[is_own].merge(rows[~is_own], on=[*SAME, "network"], suffixes=("_own", "_other"))
    # A mixer without a window meets the network's own at every window.
    same_window = (both["window_own"] == both["window_other"]) | both[["window_own", "window_other"]].isna().any(axis=1)
    found = [_exchange(row) for _, row in both[same_window.fillna(True)].iterrows()]
    numbers = [name for name in COLUMNS if name.endswith("_ms") or name.startswith("ratio") or name in COUNTED]
    return pd.DataFrame(found, columns=COLUMNS).astype(dict.fromkeys(numbers, "float64"))


def _parts(model: str) -> tuple[str, str]:
    """The network with its other options, and its mixer: "swin_t:mixer=conv" -> ("swin_t", "conv")."""
    base, *options = model.split(":")
    mixer = next((each.removeprefix("mixer=") for each in options if each.startswith("mixer=")), OWN[base])
    return ":".join([base, *(each for each in options if not each.startswith("mixer="))]), mixer


def _exchange(row: pd.Series) -> dict[str, Any]:
    window = row["window_other"] if pd.isna(row["window_own"]) else row["window_own"]
    status = row["status_own"] if row["status_own"] != "ok" else row["status_other"]
    return {
        **{name: row[name] for name in (*SAME, "network")},
        "window": window,
        "own": row["mixer_own"],
        "other": row["mixer_other"],
        "status": status,
        "own_ms": row["latency_ms_own"],
        "other_ms": row["latency_ms_other"],
        **_compare(row),
        **{name: _difference(row[f"{name}_other"], row[f"{name}_own"]) for name in COUNTED},
    }


def _difference(other: Any, own: Any) -> float | None:
    return None if pd.isna(other) or pd.isna(own) else float(other) - float(own)


def _compare(row: pd.Series) -> dict[str, Any]:
    ratio = row["latency_ms_other"] / row["latency_ms_own"]
    found = {"ratio": ratio, "difference_ms": row["latency_ms_other"] - row["latency_ms_own"]}
    if not (row["latency_low_ms_own"] > 0 and row["latency_low_ms_other"] > 0):
        return found
    other, own = _side(row, "other"), _side(row, "own")
    bounds, gap = ratio_interval(*other, *own), difference_interval(*other, *own)
    over_launches = row["interval_own"] == row["interval_other"] == "launches"
    return {
        **found,
        "ratio_low": bounds.low,
        "ratio_high": bounds.high,
        "difference_low_ms": gap.low,
        "difference_high_ms": gap.high,
        "interval": "launches" if over_launches else "within-launch",
    }


def _side(row: pd.Series, side: str) -> tuple[Interval, int]:
    """The latency of one side and the degrees of freedom of its interval."""
    bounds = Interval(*(float(row[f"{name}_{side}"]) for name in ("latency_ms", "latency_low_ms", "latency_high_ms")))
    return bounds, (BATCHES if row[f"interval_{side}"] == "within-launch" else int(row[f"launches_{side}"])) - 1


def difference_interval(top: Interval, top_freedom: int, bottom: Interval, bottom_freedom: int) -> Interval:
    """95 % interval of top - bottom: Welch's, each standard error that of the logarithm times the estimate."""
    variances = [_error(top, top_freedom) ** 2, _error(bottom, bottom_freedom) ** 2]
    gap, variance = top.estimate - bottom.estimate, sum(variances)
    if variance == 0:
        return Interval(gap, gap, gap)
    freedom = variance**2 / (variances[0] ** 2 / top_freedom + variances[1] ** 2 / bottom_freedom)
    half = float(stdtrit(freedom, 0.975)) * math.sqrt(variance)
    return Interval(gap, gap - half, gap + half)


def _error(bounds: Interval, freedom: int) -> float:
    """The standard error of an estimate whose 95 % t interval is of its logarithm, by the delta method."""
    return bounds.estimate * math.log(bounds.high / bounds.low) / 2 / float(stdtrit(freedom, 0.975))
