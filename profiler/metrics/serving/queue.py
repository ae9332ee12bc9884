"""Queries, the queue before a service, and when each was answered. The clock is whoever's calls it: also a virtual one.

Arrivals are drawn before anything runs and a latency counts from its scheduled arrival, so that a service that is late
cannot delay the queries that would show it (coordinated omission).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import gammainc

HOPELESS = 50.0  # times the limit that the queue may be late before a load is given up
UNLIKELY = 1e-6
LONGER = 5.0  # times its seconds that a load may last for the queries that a percentile takes


class Service(Protocol):
    """What answers queries, and its clock in seconds."""

    def clock(self) -> float: ...

    def wait(self, seconds: float) -> None: ...

    def run(self, queries: int) -> None: ...  # answer a batch, its results ready


@dataclass(frozen=True)
class Policy:
    """How queries become batches: a batch starts when it is full, or when its first query has waited long enough."""

    max_batch: int = 1
    max_wait_s: float = 0.0


@dataclass(frozen=True)
class Answered:
    """Queries in the order of arrival: when each was scheduled and answered, infinite where it never was."""

    scheduled_s: np.ndarray
    answered_s: np.ndarray
    batches: tuple[int, ...] = ()  # queries in each

    @property
    def latencies_s(self) -> np.ndarray:
        return self.answered_s - self.scheduled_s

    @property
    def cycles(self) -> np.ndarray:
        """(n,) The number of a query's cycle: a new one begins with a query that finds all before it answered."""
        before = np.maximum.accumulate(np.concatenate([[-np.inf], self.answered_s[:-1]]))
        return np.cumsum(self.scheduled_s > before)

    def after(self, share: float) -> Answered:
        """Without the first share of the queries, which found the service idle."""
        first = int(share * len(self.scheduled_s))
        return Answered(self.scheduled_s[first:], self.answered_s[first:], self.batches)


def poisson(rate: float, seconds: float, seed: int) -> np.ndarray:
    """Arrivals of a Poisson process, in seconds from its start, at least one."""
    generator = np.random.default_rng(seed)
    return np.cumsum(generator.exponential(1 / rate, max(1, round(rate * seconds))))


def refuse_closed(arrivals: np.ndarray, rate: float) -> None:
    """ValueError for arrivals that come too late for their rate: of a generator that waits for answers."""
    if gammainc(len(arrivals), rate * arrivals[-1]) > 1 - UNLIKELY:  # the time of the last is Gamma distributed
        real = len(arrivals) / arrivals[-1]
        raise ValueError(f"got {real:.4g} arrivals a second, expected {rate:.4g}: queries must not wait for answers")


def open_loop(
    arrivals: np.ndarray, service: Service, policy: Policy, limit_s: float | None = None, rate: float | None = None
) -> Answered:
    """Answer queries that arrive on schedule, whatever becomes of the earlier ones. rate: of a Poisson process.

    limit_s: where the queue is very much later than this, the rest is given up and counts as never answered.
    """
    if rate is not None:
        refuse_closed(arrivals, rate)
    start = service.clock()
    answered, batches, first, waited = np.full(len(arrivals), np.inf), [], 0, 0.0
    while first < len(arrivals):
        now = max(service.clock() - start, waited)  # a clock of coarse numbers may not get there
        if now < (due := _due(arrivals, first, policy, now)):
            service.wait(due - now)
            waited = due
            continue
        size = min(policy.max_batch, int(np.searchsorted(arrivals, now, "right")) - first)
        service.run(size)
        answered[first : first + size] = service.clock() - start
        batches.append(size)
        first += size
        if limit_s is not None and answered[first - 1] - arrivals[first - 1] > HOPELESS * limit_s:
            break
    return Answered(arrivals, answered, tuple(batches))


def _due(arrivals: np.ndarray, first: int, policy: Policy, now: float) -> float:
    """When the batch that begins with a query starts: full, or its first query has waited."""
    if arrivals[first] > now:
        return float(arrivals[first])
    last = first + policy.max_batch - 1
    full = arrivals[last] if last < len(arrivals) else np.inf
    return float(min(full, arrivals[first] + policy.max_wait_s))


def closed_loop(queries: int, seconds: float, samples: int, service: Service, most: int) -> Answered:
    """Single and multi stream: each query, of so many samples, follows the answer to the one before.

    At least so many seconds, and so many queries unless these take very much longer; most: samples in a batch.
    """
    start = service.clock()
    scheduled, answered = list[float](), list[float]()
    while not answered or answered[-1] < (seconds if len(answered) >= queries else LONGER * seconds):
        scheduled.append(service.clock() - start)
        _run(samples, service, most)
        answered.append(service.clock() - start)
    return Answered(np.array(scheduled), np.array(answered))


def offline(seconds: float, service: Service, most: int) -> tuple[int, float]:
    """All samples are there at once: how many were answered, and in how many seconds, at least the given."""
    start, done = service.clock(), 0
    while service.clock() - start < seconds or not done:
        service.run(most)
        done += most
    return done, service.clock() - start


def _run(samples: int, service: Service, most: int) -> None:
    while samples > 0:
        service.run(min(samples, most))
        samples -= most
