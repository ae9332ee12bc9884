"""When a series of times is steady, when it is enough, and how sure its median is.

Pure functions over numbers; the clock is handed in. Steady state by drift over windows,
truncation by MSER (White 1997), intervals by batch medians with a correction for
autocorrelation. `scripts/proofs/interval_coverage.py` simulates how often the intervals hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

BATCHES = 16
T_975 = 2.131449545559323  # the quantile of Student's t with BATCHES - 1 degrees of freedom
STEADY_WINDOWS = 6
STEADY_SAMPLES = 16
LOOK_GROWTH = 1.2
BLOCK = 5  # samples per block mean in MSER
TRUNCATION_GAIN = 0.1
MEMORY = 0.9  # correlation of neighbouring samples that is expected before any are seen
UNSEEN_ON_CPU, UNSEEN_ON_CUDA = 0.022, 0.0052
UNSEEN_SAMPLES = 3000  # after how many samples half of the variance of what is slower has averaged out


@dataclass(frozen=True)
class Budget:
    """How much of one launch is spent on sampling. Times in seconds, drift and target relative."""

    min_work_s: float = 0.5
    window_s: float = 1.0  # a window of the steady state is ten samples, or as many as fit into this
    drift: float = 0.02
    target: float = 0.05
    steady_cap_s: float = 30.0
    cap_s: float = 10.0
    cap_samples: int = 40


@dataclass(frozen=True)
class Interval:
    """An estimate with its two-sided 95 % bounds, in the unit of what went in."""

    estimate: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the width, relative to the estimate."""
        return (self.high - self.low) / 2 / self.estimate


@dataclass(frozen=True)
class Series:
    """What `sample` collected: all samples in order, how many of the first to drop, and whether it settled."""

    samples: tuple[float, ...]
    dropped: int
    steady: bool

    @property
    def kept(self) -> tuple[float, ...]:
        return self.samples[self.dropped :]


def budget(device: str, *, quick: bool = False, publication: bool = False) -> Budget:
    """The budget of one launch on "cpu" or "cuda:N"."""
    on_cpu = device == "cpu"
    target = 0.05 if on_cpu else 0.01
    if publication:
        target = 0.02 if on_cpu else 0.005
    min_work_s = 0.5 if on_cpu else 1.0
    drift = 0.02 if on_cpu else 0.005
    if quick:
        return Budget(min_work_s=0.05, window_s=0.05, drift=drift, target=2 * target, steady_cap_s=5.0, cap_s=1.0)
    return Budget(min_work_s=min_work_s, drift=drift, target=target)


def sample(take: Callable[[], float], clock: Callable[[], float], budget: Budget) -> Series:
    """Take samples until they are steady and their median is known well enough, or a cap is reached.

    take: runs one sample, returns its time per forward in milliseconds; clock: seconds.
    """
    start = clock()
    samples: list[float] = []
    while not is_steady(samples, clock() - start, budget):
        if len(samples) >= budget.cap_samples and clock() - start >= budget.steady_cap_s:
            return Series(tuple(samples), truncation(samples), steady=False)
        samples.append(take())
    start, taken, next_look, good_looks = clock(), 0, len(samples), 0
    while True:
        if len(samples) >= next_look:
            next_look = math.ceil(LOOK_GROWTH * len(samples))
            good_looks = good_looks + 1 if _is_precise(samples, budget.target) else 0
        capped = clock() - start >= budget.cap_s and taken >= budget.cap_samples
        if good_looks >= 2 or capped:
            return Series(tuple(samples), truncation(samples), steady=True)
        samples.append(take())
        taken += 1


def is_steady(samples: Sequence[float], elapsed_s: float, budget: Budget) -> bool:
    """The median over the first three of the last six windows is that over the last three, within the drift."""
    if len(samples) < STEADY_SAMPLES or elapsed_s < budget.min_work_s:
        return False
    sample_ms = float(np.median(samples))
    width = math.ceil(min(10.0, 1000.0 * budget.window_s / max(sample_ms, 1e-9)))
    if len(samples) < STEADY_WINDOWS * width:
        return False
    recent = np.asarray(samples[-STEADY_WINDOWS * width :])
    early, late = np.split(recent, 2)
    center = float(np.median(recent))
    standard_error = 1.2533 * math.hypot(*(_spread(half) / math.sqrt(len(half)) for half in (early, late)))
    return bool(abs(np.median(early) - np.median(late)) <= max(budget.drift * center, standard_error))


def _spread(values: np.ndarray) -> float:
    """Standard deviation from the median absolute deviation."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def _is_precise(samples: Sequence[float], target: float) -> bool:
    kept = samples[truncation(samples) :]
    return len(kept) >= BATCHES and within_launch(kept).half_width <= target


def truncation(samples: Sequence[float]) -> int:
    """How many leading samples to drop: argmin over d of Var(m[d+1..b]) / (b - d) on block means (MSER).

    At most half of the samples are dropped, and never so many that fewer than 16 remain. None are unless that
    makes the score ten times smaller: of samples that are steady already, the argmin keeps the stretch that
    happens to be calmest, whose spread is not theirs: 2 to 5 points less coverage of a nominal 95 %.
    """
    blocks = len(samples) // BLOCK
    if blocks < 4:
        return 0
    means = np.asarray(samples[: blocks * BLOCK]).reshape(blocks, BLOCK).mean(axis=1)
    most = min(blocks // 2, (len(samples) - BATCHES) // BLOCK)
    scores = [float(means[d:].var()) / (blocks - d) for d in range(max(most, 0) + 1)]
    best = int(np.argmin(scores))
    return BLOCK * best if scores[best] <= TRUNCATION_GAIN * scores[0] else 0


def unseen(device: str) -> float:
    """Relative standard deviation of drift and terms slower than a launch, on "cpu" or "cuda:N".

    Assumed, since no launch can measure it: sqrt(slow^2 + D^2 / 12) of the noise model, hosted CPU or dedicated GPU.
    """
    return UNSEEN_ON_CPU if device == "cpu" else UNSEEN_ON_CUDA


def within_launch(samples: Sequence[float] | np.ndarray, unseen: float = 0.0) -> Interval:
    """95 % interval of one launch's median from 16 batch medians, widened for their autocorrelation.

    Needs at least 16 samples. It says nothing of how another launch would differ. Without `unseen` the median is
    that of the machine as it was just then; with it, that of the launch on the machine as it is on average.
    Terms with a memory of 1,000 samples average out slowly: of n samples, about 1 / (1 + n / 3000) of their variance
    is left.
    """
    if len(samples) < BATCHES:
        raise ValueError(f"got {len(samples)} samples, expected at least {BATCHES}")
    medians = np.array([np.median(batch) for batch in np.array_split(np.asarray(samples), BATCHES)])
    first, third = np.quantile(medians, (0.25, 0.75))
    clipped = np.clip(medians, first - 3 * (third - first), third + 3 * (third - first))
    error = float(clipped.std(ddof=1)) * math.sqrt(_inflation(clipped, len(samples) / BATCHES) / BATCHES)
    median = float(np.median(samples))
    unseen_ms = unseen * median / math.sqrt(1 + len(samples) / UNSEEN_SAMPLES)
    half = math.hypot(T_975 * error, 1.96 * unseen_ms)
    return Interval(median, max(median - half, 0.0), median + half)


def _inflation(values: np.ndarray, batch: float) -> float:
    """Variance of the mean of b batches of `batch` samples, as a multiple of s^2 / b, which holds for white noise.

    The lag-1 autocorrelation of 16 numbers is small by (1 + 4 rho) / b on average (Kendall 1954) and off by 0.25
    at random, so half the weight goes to what noise with a memory of ten samples would show: g = 0.9^batch, near
    1 for batches of one sample, gone from forty. Correlations fall geometrically, with the slower of g and rho:
    V = 1 + 2 rho / (1 - max(g, rho)). And s^2, taken around the mean of the same values, is small by 1 - V / b.
    """
    deviations = values - values.mean()
    total = float(deviations @ deviations)
    correlation = float(deviations[:-1] @ deviations[1:]) / total if total > 0 else 0.0
    measured = (correlation + 1 / BATCHES) / (1 - 4 / BATCHES)
    expected = MEMORY**batch
    rho = min((max(measured, 0.0) + expected) / 2, 0.9)
    inflation = 1 + 2 * rho / (1 - max(expected, rho))
    return inflation / (1 - min(inflation / BATCHES, 0.75))
