"""Weighted sums of independent means, and how sure they are: what slopes and ratios are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from mixprof.sampling import BATCHES

LEAST_CASES = 8
ENQUEUE_BOUND = 0.9  # of the time on the device: from there on the host is what was timed


@dataclass(frozen=True)
class Points:
    """Natural logarithms of measurements with their standard errors and degrees of freedom, each (..., n)."""

    logs: np.ndarray
    errors: np.ndarray
    freedoms: np.ndarray


def over_launches(logs: np.ndarray) -> np.ndarray:
    """Standard errors of mean logs as they count beside other cases. (..., cases, launches) -> (..., cases).

    What all cases of a round share, such as the machine's drift, cancels in slopes and ratios and is taken out: the
    median over cases of how far they are from their own means, whose own variance, pi / 2 of a mean's, leaves
    1 - (2 - pi / 2) / cases of theirs. Of fewer than 8 cases it cannot be told from their own.
    """
    cases, launches = logs.shape[-2:]
    if cases >= LEAST_CASES:
        shared = np.median(logs - logs.mean(axis=-1, keepdims=True), axis=-2, keepdims=True)
        logs = (logs - shared) / np.sqrt(1 - (2 - np.pi / 2) / cases)
    return np.asarray(logs.std(axis=-1, ddof=1) / np.sqrt(launches))


def latencies(rows: pd.DataFrame) -> Points:
    """The latencies of rows of the frame; an error is missing where the frame has no interval."""
    middle, low, high, launches, error = (
        rows[name].to_numpy(dtype=float, na_value=np.nan)
        for name in ("latency_ms", "latency_low_ms", "latency_high_ms", "launches", "log_error")
    )
    within = (rows["interval"] == "within-launch").to_numpy()
    low = np.where(low > 0, low, np.nan)  # an interval within one launch may reach below zero
    freedoms = np.where(within, BATCHES, launches) - 1.0
    return Points(np.log(middle), np.where(within, np.log(high / low) / 2 / stdtrit(freedoms, 0.975), error), freedoms)


def combined(weights: np.ndarray, errors: np.ndarray, freedoms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standard error and degrees of freedom of a weighted sum of independent means, each (..., n) -> (...).

    Variances add. Degrees of freedom by Welch's formula for few of them, V^2 / sum(v^2 / (f + 2)) - 2 (Biometrika
    34, 1947), at least the fewest of a part. Satterthwaite's V^2 / sum(v^2 / f) comes out too small with three
    launches a part: intervals of a nominal 95 % then hold the truth in 97 %.
    """
    variances = (weights * errors) ** 2
    total = variances.sum(axis=-1)
    least = np.where(weights != 0, freedoms, np.inf).min(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = total**2 / (variances**2 / (freedoms + 2)).sum(axis=-1) - 2
    return np.sqrt(total), np.where(total > 0, np.maximum(freedom, least), least)


def half_width(error: np.ndarray, freedom: np.ndarray, chance: float = 0.975) -> np.ndarray:
    """How far a one-sided bound of this chance lies from the estimate; that of 0.975 is a two-sided 95 %."""
    return np.asarray(stdtrit(freedom, chance) * error)


def bound_by_enqueue(frame: pd.DataFrame) -> pd.Series:
    """Rows of a GPU on which the host needs as long to enqueue a forward as the device seems to take for it.

    Never met on a GPU yet.
    """
    slow = frame["enqueue_ms"] >= ENQUEUE_BOUND * frame["latency_ms"]
    return slow & (frame["time"] == "gpu_ms")


def usable(frame: pd.DataFrame) -> pd.Series:
    """Rows that may enter fits: those that are ok and not bound by the host's enqueueing."""
    return (frame["status"] == "ok") & ~bound_by_enqueue(frame)
