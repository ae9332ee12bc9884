"""The latencies of the frame as points, and the intervals that follow: of each, and of the ratio of any two."""

import numpy as np
import pandas as pd

from mixprof.reports.statistics import FIRST_OVER_SECOND, LEAST_CASES, Points, contrast, half_width, measured

BESIDE = ["run", "device", "rounds"]  # rows that share these were measured beside one another
ERRORS = ("log_error", "log_freedom", "shared_variance")  # columns of the frame
RATIO = ("ratio", "ratio_low", "ratio_high", "interval", "host_bound")


def moderated_errors(frame: pd.DataFrame) -> pd.DataFrame:
    """ERRORS of each row of the frame that enough others of its rounds stand beside; missing of the other rows."""
    errors = pd.DataFrame(np.nan, index=frame.index, columns=list(ERRORS))
    several = frame["launches"].where(frame["latency_ms"].notna(), 0) > 1
    for _, rows in frame[several].groupby(BESIDE):
        if len(rows) >= LEAST_CASES:
            moderated = measured(np.array([_logs(medians) for medians in rows["medians_ms"]]))
            errors.loc[rows.index] = np.stack([moderated.errors, moderated.freedoms, moderated.shared], axis=-1)
    return errors


def moderate(frame: pd.DataFrame) -> None:
    """Put the errors of rows that enough others stand beside into the frame, and the intervals that follow."""
    moderated = moderated_errors(frame)
    rows = moderated["log_error"].notna()
    frame.loc[rows, moderated.columns] = moderated[rows]
    frame.loc[rows, "latency_low_ms"], frame.loc[rows, "latency_high_ms"] = intervals(frame[rows])


def _logs(medians: str) -> np.ndarray:
    """The logarithms of a cell of `medians_ms`, a launch each."""
    return np.log([float(median) for median in medians.split(", ")])


def points(rows: pd.DataFrame) -> Points:
    """The latencies of rows of the frame; an error is missing where the frame has no interval."""
    names = ("latency_ms", "launches", *ERRORS)
    middle, launches, errors, freedoms, shared = (rows[name].to_numpy(dtype=float, na_value=np.nan) for name in names)
    several = (launches > 1) & ~np.isnan(middle)
    groups = np.where(several, rows.groupby(BESIDE, dropna=False).ngroup(), -1 - np.arange(len(rows)))
    few = np.flatnonzero(several & np.isnan(shared))
    by_round = None
    if len(few):
        by_round = np.full((len(rows), int(launches[few].max())), np.nan)
        for row in few:
            by_round[row, : int(launches[row])] = _logs(rows["medians_ms"].iloc[row])
    freedom = np.maximum(launches - 1, 1)
    return Points(np.log(middle), errors, freedoms, np.nan_to_num(shared), freedom, groups, by_round)


def intervals(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % interval of each row's latency, in milliseconds."""
    alone = points(rows).at(np.arange(len(rows))[:, None])
    half = half_width(*contrast(np.ones(1), alone))
    return np.exp(alone.logs[:, 0] - half), np.exp(alone.logs[:, 0] + half)


def ratio(frame: pd.DataFrame, top: np.ndarray, bottom: np.ndarray) -> pd.DataFrame:
    """The latency of one row of the frame over that of another, for each two positions. -> RATIO, a row a pair.

    host_bound: either side is.

    `interval` is "launches", or "within-launch" where that of either side is, and missing where either has none.
    """
    pairs = points(frame).at(np.stack([top, bottom], axis=-1).astype(int))
    latencies = frame["latency_ms"].to_numpy()
    middle, factor = latencies[top] / latencies[bottom], np.exp(half_width(*contrast(FIRST_OVER_SECOND, pairs)))
    kinds = frame["interval"].to_numpy()
    kind = np.where((kinds[top] == "launches") & (kinds[bottom] == "launches"), "launches", "within-launch")
    interval = pd.Series(kind, dtype=object).where(~np.isnan(factor), None)
    bound = host_bound(frame).to_numpy()
    columns = (middle, middle / factor, middle * factor, interval, bound[top] | bound[bottom])
    return pd.DataFrame(dict(zip(RATIO, columns, strict=True)))


def bound_by_enqueue(frame: pd.DataFrame) -> pd.Series:
    """Rows of a GPU whose device time holds gaps of its host: host-bound, and no gate held all of a forward's launches.

    Never met on a GPU yet.
    """
    return host_bound(frame) & ~frame["gated"].fillna(False).astype(bool)


def host_bound(frame: pd.DataFrame) -> pd.Series:
    """Rows of a GPU on which forwards one after another wait for the host."""
    return frame["host_bound"].fillna(False).astype(bool)


def usable(frame: pd.DataFrame) -> pd.Series:
    """Rows that may enter fits: those that are ok and whose time is not that of the host's enqueueing."""
    return (frame["status"] == "ok") & ~bound_by_enqueue(frame)
