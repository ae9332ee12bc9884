"""One network with its own mixer and with another: latencies, parameters, MACs and memory compared."""

import pandas as pd

from mixprof.reports.answers.ratios import beside
from mixprof.reports.latencies import points, ratio
from mixprof.reports.statistics import FIRST_OVER_SECOND, contrast, half_width

SAME = ["run", "lowering", "device", "dtype", "layout", "mode", "step", "batch", "resolution"]
COUNTED = ("params", "macs", "allocator_peak_bytes")
COLUMNS = [
    *(*SAME, "window", "network", "own", "other", "status", "own_ms", "other_ms"),
    *("own_share", "other_share"),
    *(
        "ratio",
        "ratio_low",
        "ratio_high",
        "difference_ms",
        "difference_low_ms",
        "difference_high_ms",
        "interval",
        "host_bound",
    ),
    *COUNTED,
]


def exchanges(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per network, other mixer and setting that both were run in.

    SAME, `window`, `network`, `own`, `other`, `status` ("ok", or the first that is not, the own mixer's first), the
    latencies and their floors' shares of them, `ratio`, `ratio_low`, `ratio_high`, `difference_ms` with its bounds,
    `interval` ("launches", "within-launch" or missing), and the difference of each count, other minus own, as
    `params`, `macs`, `allocator_peak_bytes`.
    """
    rows = frame[frame["own_mixer"].notna()].reset_index(drop=True)
    if rows.empty:
        return pd.DataFrame(columns=COLUMNS)
    rows["network"] = rows["model"].str.replace(r":mixer=\w+", "", regex=True)
    is_own = rows["mixer"] == rows["own_mixer"]
    both = beside(rows[~is_own], rows[is_own], [*SAME, "network"])
    other, own = rows.iloc[both["top"]].reset_index(drop=True), rows.iloc[both["bottom"]].reset_index(drop=True)
    compared = pd.concat([both[[*SAME, "network"]], _compared(rows, both), _differences(other, own)], axis=1)
    # A mixer without a window meets the network's own at every window.
    same_window = (own["window"] == other["window"]) | own["window"].isna() | other["window"].isna()
    return compared[same_window.fillna(True).astype(bool)][COLUMNS].reset_index(drop=True)


def _compared(rows: pd.DataFrame, both: pd.DataFrame) -> pd.DataFrame:
    """The ratio of the latencies of two rows, and their difference, whose errors are those of logs times latencies."""
    positions = both[["top", "bottom"]].to_numpy()
    compared = ratio(rows, positions[:, 0], positions[:, 1])
    latencies = rows["latency_ms"].to_numpy()[positions]
    half = half_width(*contrast(latencies * FIRST_OVER_SECOND, points(rows).at(positions)))
    difference = latencies @ FIRST_OVER_SECOND
    bounds = {"difference_low_ms": difference - half, "difference_high_ms": difference + half}
    return compared.assign(difference_ms=difference, **bounds)


def _differences(other: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
    """Name both sides, and subtract the counts of the own mixer from those of the other."""
    return pd.DataFrame({
        "window": own["window"].fillna(other["window"]),
        "own": own["mixer"],
        "other": other["mixer"],
        "status": own["status"].where(own["status"] != "ok", other["status"]),
        "own_ms": own["latency_ms"],
        "other_ms": other["latency_ms"],
        "own_share": own["attainable_share"],
        "other_share": other["attainable_share"],
        **{name: other[name].astype(float) - own[name].astype(float) for name in COUNTED},
    })  # fmt: skip
