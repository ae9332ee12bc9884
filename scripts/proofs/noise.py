"""The noise of repeated launches with known truth: MEASUREMENT.md, 'The noise model used above'. All in log units.

    job = Job(PROFILES["hosted CPU"], numpy.random.default_rng(0), slots=5400)
    launch = job.launch()
    launch.first(100)   # log times of its first 100 iterations, around a true time of log 1 = 0
    launch.truth        # what their median would be without drift and slow terms

A slot is one iteration. Drift and slow terms belong to the machine and go on from launch to launch;
all else starts anew in each.
"""

import argparse
import functools
import math
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import brentq
from scipy.signal import lfilter
from scipy.special import stdtr

SLOW_MEMORY, FAST_MEMORY = 0.999, 0.9
BURST, BURST_LENGTH = math.log(1.2), 20.0  # slots
SPIKE_RATE, SPIKE = 0.01, 0.10
SILENT_SLOTS = 50  # what it costs to start a launch
BLOCK = 256  # slots generated at once


@dataclass(frozen=True)
class Profile:
    """One row of the table of profiles: standard deviations in log units, rates per slot or per launch."""

    drift: float
    slow: float
    fast: float
    burst_rate: float
    iteration: float
    launch: float
    mode_rate: float
    mode: float
    job: float


PROFILES = {
    "dedicated GPU": Profile(0.005, 0.005, 0.003, 5e-4, 0.005, 0.004, 0.05, math.log(1.03), 0.01),
    "hosted CPU": Profile(0.03, 0.02, 0.02, 2.5e-3, 0.02, 0.01, 0.10, math.log(1.05), 0.05),
}


def replicates(text: str | None, profile: bool = False) -> argparse.Namespace:
    """The options of a simulation whose docstring this is; `replicates` is set, and `profile` where it is asked for."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="200 replicates")
    parser.add_argument("--replicates", type=int, help="default: 2000, a Monte-Carlo error below 1 %%")
    if profile:
        parser.add_argument("--profile", choices=PROFILES, default="hosted CPU")
    options = parser.parse_args()
    options.replicates = options.replicates or (200 if options.quick else 2000)
    return options


def ar1(rng: np.random.Generator, deviation: float, memory: float, slots: int, before: np.ndarray) -> np.ndarray:
    """Stationary AR(1) of this standard deviation, going on after the values `before`. (rows,) -> (rows, slots)."""
    shocks = deviation * math.sqrt(1 - memory**2) * rng.standard_normal((len(before), slots))
    return lfilter([1.0], [1.0, -memory], shocks, axis=1, zi=memory * before[:, None])[0]


def bursts(rng: np.random.Generator, rate: float, slots: int, before: np.ndarray) -> np.ndarray:
    """Whether each slot lies in a burst: on with `rate` per slot, off with 1 / BURST_LENGTH. (rows,) -> (rows, slots).

    One uniform number decides a slot: low turns a burst on, high turns it off, between the slot is as the last one.
    """
    uniform = rng.random((len(before), slots))
    on, decided = uniform < rate, (uniform < rate) | (uniform >= 1 - 1 / BURST_LENGTH)
    on[:, 0] = np.where(decided[:, 0], on[:, 0], before)
    last = np.maximum.accumulate(np.where(decided, np.arange(slots), 0), axis=1)
    return np.take_along_axis(on, last, axis=1)


def burst_share(profile: Profile) -> float:
    """The share of slots that lie in a burst."""
    return profile.burst_rate / (profile.burst_rate + 1 / BURST_LENGTH)


def iterations(rng: np.random.Generator, profile: Profile, shape: tuple[int, ...]) -> np.ndarray:
    """What differs from one iteration to the next without memory: heavy tails, and spikes."""
    tails = profile.iteration * rng.standard_t(3, shape) / math.sqrt(3)
    return tails + np.where(rng.random(shape) < SPIKE_RATE, rng.exponential(SPIKE, shape), 0.0)


@functools.cache
def iteration_median(profile: Profile) -> float:
    """The median of an iteration over fast terms, bursts, tails and spikes, by quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(64)
    spikes = -SPIKE * np.log((np.arange(200) + 0.5) / 200)
    shifts = np.concatenate([[0.0], spikes])
    shares = np.concatenate([[1 - SPIKE_RATE], np.full(200, SPIKE_RATE / 200)])
    burst = burst_share(profile)

    def below(x: float) -> float:
        steady = x - profile.fast * nodes[:, None] - shifts
        cdf = sum(p * stdtr(3, (steady - b) * math.sqrt(3) / profile.iteration)
                  for p, b in ((1 - burst, 0.0), (burst, BURST)))  # fmt: skip
        return float(weights @ cdf @ shares / weights.sum())

    return float(brentq(lambda x: below(x) - 0.5, -1.0, 1.0))


def case_truth(profile: Profile) -> float:
    """The mean over launches of a launch's truth."""
    return iteration_median(profile) + profile.mode_rate * profile.mode


def later(rng: np.random.Generator, profile: Profile, slow: np.ndarray, slots: int) -> np.ndarray:
    """The slow term of each machine after slots that nobody looks at. (machines,) -> (machines,)."""
    kept = SLOW_MEMORY**slots
    return kept * slow + profile.slow * math.sqrt(1 - kept**2) * rng.standard_normal(len(slow))


def sweep_medians(
    profile: Profile, rng: np.random.Generator, shape: tuple[int, int, int], cases: int, slots: int
) -> np.ndarray:
    """Log medians of launches of `slots` iterations, around a true log of 0. shape: (sweeps, points, rounds).

    Each sweep runs every one of `cases` cases once a round, in a new random order, `points` of them looked at.
    """
    sweeps, points, rounds = shape
    step = SILENT_SLOTS + slots
    time = np.arange(slots) - rounds * cases * step / 2
    slow = rng.normal(0, profile.slow, sweeps)
    medians = np.empty(shape)
    for turn in range(rounds):
        order = rng.permuted(np.tile(np.arange(cases), (sweeps, 1)), axis=1)
        for place in range(cases):
            slow = later(rng, profile, slow, SILENT_SLOTS)
            mine = np.flatnonzero(order[:, place] < points)
            launches, background = _launches(profile, rng, slow[mine], slots)
            drift = profile.drift * (time + (turn * cases + place) * step + SILENT_SLOTS) / (rounds * cases * step)
            medians[mine, order[mine, place], turn] = np.median(launches + drift, axis=1)
            slow = later(rng, profile, slow, slots)
            slow[mine] = background
    return medians


def _launches(
    profile: Profile, rng: np.random.Generator, slow: np.ndarray, slots: int
) -> tuple[np.ndarray, np.ndarray]:
    """A launch on each of some machines, (machines, slots), without drift; and their slow terms after it."""
    count = len(slow)
    effect = rng.normal(0, profile.launch, count) + profile.mode * (rng.random(count) < profile.mode_rate)
    background = ar1(rng, profile.slow, SLOW_MEMORY, slots, slow)
    fast = ar1(rng, profile.fast, FAST_MEMORY, slots, rng.normal(0, profile.fast, count))
    burst = BURST * bursts(rng, profile.burst_rate, slots, rng.random(count) < burst_share(profile))
    logs = effect[:, None] + background + fast + burst + iterations(rng, profile, (count, slots))
    return logs, background[:, -1]


class Job:
    """One machine for `slots` slots, drifting over all of them; a separate job has an offset of its own."""

    def __init__(self, profile: Profile, rng: np.random.Generator, slots: int, *, separate: bool = False):
        self.profile, self.rng, self.slots = profile, rng, slots
        self.now = 0
        self.slow = rng.normal(0, profile.slow, 1)
        self.offset = rng.normal(0, profile.job) if separate else 0.0

    def idle(self, slots: int) -> None:
        """Let time pass that nobody measures."""
        self.slow = later(self.rng, self.profile, self.slow, slots)
        self.now += slots

    def launch(self) -> "Launch":
        """Start a process: silent slots, then a launch with its own effect and mode."""
        self.idle(SILENT_SLOTS)
        profile, rng = self.profile, self.rng
        effect = rng.normal(0, profile.launch) + profile.mode * (rng.random() < profile.mode_rate)
        return Launch(self, float(effect))

    def background(self, slots: int) -> np.ndarray:
        """Drift, slow terms and the job's offset for the next slots."""
        time = np.arange(self.now, self.now + slots)
        slow = ar1(self.rng, self.profile.slow, SLOW_MEMORY, slots, self.slow)[0]
        self.slow, self.now = slow[-1:], self.now + slots
        return self.offset + slow + self.profile.drift * (time / max(self.slots - 1, 1) - 0.5)


@dataclass
class Launch:
    """The iterations of one process, made when they are asked for, the same whoever asks."""

    job: Job
    effect: float
    _logs: np.ndarray = field(default_factory=lambda: np.empty(0))

    def __post_init__(self) -> None:
        rng, profile = self.job.rng, self.job.profile
        self._fast = rng.normal(0, profile.fast, 1)
        self._burst = rng.random(1) < burst_share(profile)

    @property
    def truth(self) -> float:
        """The median of the launch, with drift and slow terms off."""
        return iteration_median(self.job.profile) + self.effect

    def first(self, slots: int) -> np.ndarray:
        """Log times of the first slots of the launch, or of more."""
        while len(self._logs) < slots:
            self._logs = np.concatenate([self._logs, self._block()])
        return self._logs

    def _block(self) -> np.ndarray:
        rng, profile = self.job.rng, self.job.profile
        fast = ar1(rng, profile.fast, FAST_MEMORY, BLOCK, self._fast)
        burst = bursts(rng, profile.burst_rate, BLOCK, self._burst)
        self._fast, self._burst = fast[:, -1], burst[:, -1]
        quick = fast[0] + BURST * burst[0] + iterations(rng, profile, (BLOCK,))
        return self.effect + quick + self.job.background(BLOCK)
