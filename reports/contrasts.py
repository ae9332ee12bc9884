"""Weighted sums of independent means, and how sure they are: what slopes and ratios are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from profiler.sampling import BATCHES

ENQUEUE_BOUND = 0.9  # of the time on the device: from there on the host is what was timed


@dataclass(frozen=True)
class Points:
    """Natural logarithms of measurements with their standard errors and degrees of freedom, each (..., n)."""

    logs: np.ndarray
    errors: np.ndarray
    freedoms: np.ndarray


def over_launches(logs: np.ndarray) -> Points:
    """Points from the logarithms of the medians of at least two launches. (..., n, launches) -> (..., n)."""
    launches = logs.shape[-1]
    errors = logs.std(axis=-1, ddof=1) / np.sqrt(launches)
    return Points(logs.mean(axis=-1), errors, np.full(errors.shape, launches - 1.0))


def latencies(rows: pd.DataFrame) -> Points:
    """The latencies of rows of the frame, by the t intervals that it has; an error is missing where an interval is."""
    middle, low, high, launches = (
        rows[name].to_numpy(dtype=float, na_value=np.nan)
        for name in ("latency_ms", "latency_low_ms", "latency_high_ms", "launches")
    )
    freedoms = np.where(rows["interval"] == "within-launch", BATCHES, launches) - 1.0
    low = np.where(low > 0, low, np.nan)  # an interval within one launch may reach below zero
    return Points(np.log(middle), np.log(high / low) / 2 / stdtrit(freedoms, 0.975), freedoms)


def combined(weights: np.ndarray, errors: np.ndarray, freedoms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standard error and degrees of freedom of a weighted sum of independent means, each (..., n) -> (...).

    Variances add. Degrees of freedom by Welch's formula for few of them, V^2 / sum(v^2 / (f + 2)) - 2 (Biometrika
    34, 1947), within the least and the sum of the parts'. Satterthwaite's V^2 / sum(v^2 / f) comes out too small with
    three launches a part: intervals of a nominal 95 % then hold the truth in 97 %.
    """
    variances = (weights * errors) ** 2
    taken = np.broadcast_to(weights != 0, variances.shape)
    total = variances.sum(axis=-1)
    most = np.where(taken, freedoms, 0.0).sum(axis=-1)
    least = np.where(taken, freedoms, np.inf).min(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = total**2 / (variances**2 / (freedoms + 2)).sum(axis=-1) - 2
    return np.sqrt(total), np.clip(np.where(total > 0, freedom, most), least, most)


def half_width(error: np.ndarray, freedom: np.ndarray, chance: float = 0.975) -> np.ndarray:
    """How far a one-sided bound of this chance lies from the estimate; that of 0.975 is a two-sided 95 %."""
    return np.asarray(stdtrit(freedom, chance) * error)


def bound_by_enqueue(frame: pd.DataFrame) -> pd.Series:
    """Rows of a GPU on which the host needs as long to enqueue a forward as the device seems to take for it."""
    slow = frame["enqueue_ms"] >= ENQUEUE_BOUND * frame["latency_ms"]
    return slow & (frame["time"] == "gpu_ms")


def usable(frame: pd.DataFrame) -> pd.Series:
    """Rows that may enter fits: those that are ok and not bound by the host's enqueueing."""
    return (frame["status"] == "ok") & ~bound_by_enqueue(frame)
