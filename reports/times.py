"""Times of one side in milliseconds, for limits and for exporters: estimates with intervals over rounds or launches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.special import stdtrit

PERCENTILES = {"host_p50": 50, "host_p95": 95, "host_p99": 99}
METRICS = ("latency", *PERCENTILES)
SAMPLES_FOR = {"host_p99": 1000}


@dataclass(frozen=True)
class Time:
    """One metric in milliseconds with its 95 % interval; without the first, why it is not known."""

    ms: float | None
    low_ms: float | None = None  # None where there was one round
    high_ms: float | None = None
    reason: str | None = None


def of_rounds(rounds: Sequence[Sequence[float]], single_requests: bool, device: str) -> dict[str, Time]:
    """Every metric of these samples, milliseconds per forward, a sequence for each round or launch.

    single_requests: whether a sample is one host time of one forward, as a request meets it; device: "cpu", "cuda:0".
    """
    filled = [samples for samples in rounds if len(samples)]
    if not filled:
        return {name: Time(None, reason="nothing was timed") for name in METRICS}
    found = {"latency": _estimate(filled, _latency)}
    for name, percent in PERCENTILES.items():
        count, least = sum(map(len, filled)), SAMPLES_FOR.get(name, 1)
        if device.startswith("cuda"):
            found[name] = Time(None, reason="device times were taken, no single requests: a sweep's run has these")
        elif not single_requests:
            found[name] = Time(None, reason="a sample is the mean of several forwards, each too short to time alone")
        elif count < least:
            found[name] = Time(None, reason=f"it needs {least:,} samples, there were {count:,}")
        else:
            found[name] = _estimate(filled, partial(_percentile, percent=percent))
    return found


def _latency(rounds: Sequence[Sequence[float]]) -> float:
    """The mean over rounds of the log of a round's median."""
    return float(np.mean([math.log(np.median(samples)) for samples in rounds]))


def _percentile(rounds: Sequence[Sequence[float]], percent: float) -> float:
    return math.log(np.percentile(np.concatenate([np.asarray(samples) for samples in rounds]), percent))


def _estimate(rounds: Sequence[Sequence[float]], of: Callable[[Sequence[Sequence[float]]], float]) -> Time:
    """A statistic of logs with its jackknife interval, a round left out at a time: samples of one round are alike.

    For the latency this is the t interval over rounds.
    """
    center = of(rounds)
    if (count := len(rounds)) < 2:
        return Time(math.exp(center))
    without = np.array([of([*rounds[:k], *rounds[k + 1 :]]) for k in range(count)])
    error = math.sqrt((count - 1) / count * float(((without - without.mean()) ** 2).sum()))
    half = float(stdtrit(count - 1, 0.975)) * error
    return Time(math.exp(center), math.exp(center - half), math.exp(center + half))
