"""Times of one side in milliseconds, for limits and for exporters: estimates with intervals over rounds or launches."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixprof.data.case import is_gpu
from mixprof.reports.statistics import half_width, over_launches

PERCENTILES = {"host_p50": 50, "host_p95": 95, "host_p99": 99}
METRICS = ("latency", *PERCENTILES)
SAMPLES_FOR = {"host_p99": 1000}


@dataclass(frozen=True)
class Time:
    """One metric in milliseconds with its 95 % interval; without the first, why it is not known."""

    ms: float | None
    low_ms: float | None = None  # None where there was one round, or where the end is beyond all samples
    high_ms: float | None = None
    reason: str | None = None


def of_rounds(rounds: Sequence[Sequence[float]], single_requests: bool, device: str) -> dict[str, Time]:
    """Every metric of these samples, milliseconds per forward, a sequence for each round or launch.

    single_requests: whether a sample is one host time of one forward, as a request meets it; device: "cpu", "cuda:0".
    """
    filled = [samples for samples in rounds if len(samples)]
    if not filled:
        return {name: Time(None, reason="nothing was timed") for name in METRICS}
    times = {"latency": _latency(filled)}
    for name, percent in PERCENTILES.items():
        count, least = sum(map(len, filled)), SAMPLES_FOR.get(name, 1)
        if is_gpu(device):
            times[name] = Time(None, reason="device times were taken, no single requests: a sweep's run has these")
        elif not single_requests:
            times[name] = Time(None, reason="a sample is the mean of several forwards, each too short to time alone")
        elif count < least:
            times[name] = Time(None, reason=f"it needs {least:,} samples, there were {count:,}")
        else:
            times[name] = _percentile(filled, percent)
    return times


def _latency(rounds: Sequence[Sequence[float]]) -> Time:
    """The mean over rounds of the log of a round's median."""
    medians = [float(np.median(samples)) for samples in rounds]
    if len(medians) < 2:
        return Time(medians[0])
    interval = over_launches(medians)
    return Time(interval.estimate, interval.low, interval.high)


def _percentile(rounds: Sequence[Sequence[float]], percent: float) -> Time:
    """Of all samples together, with the interval of Woodruff (1952) for samples that come in clusters, here rounds.

    How much a round's share of samples above the estimate varies says between which other percentiles the true one
    lies. An end beyond the largest or smallest sample is not known.
    """
    pooled = np.concatenate([np.asarray(samples) for samples in rounds])
    estimate = float(np.percentile(pooled, percent))
    if (count := len(rounds)) < 2:
        return Time(estimate)
    counts = np.array([len(samples) for samples in rounds])
    above = np.array([np.mean(np.asarray(samples) > estimate) for samples in rounds])
    # Rounds of unequal length: the variance of a ratio.
    deviations = counts / counts.mean() * (above - np.average(above, weights=counts))
    error = np.sqrt(np.sum(deviations**2) / (count - 1) / count)
    half = 100 * float(half_width(error, count - 1))
    low, high = percent - half, percent + half
    ends = [float(np.percentile(pooled, at)) if 0 <= at <= 100 else None for at in (low, high)]
    return Time(estimate, ends[0], ends[1])
