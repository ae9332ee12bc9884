"""What a gate can tell on a machine: pure functions over A/A differences. MEASUREMENT.md, 'Calibration'.

A pool holds one case's log differences between two sides of the same code, or of code with a known slow-down.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mixprof.reports.gate.verdicts import LOOKS, THRESHOLD, Verdict, judge, smallest_detectable
from mixprof.reports.statistics import Key, wilson

LEAST_PAIRS = 20
JOBS = 400  # drawn from the pools


@dataclass(frozen=True)
class Share:
    """So many of so many, with the Wilson interval of their share."""

    hits: int
    of: int
    low: float
    high: float

    @property
    def share(self) -> float:
        return self.hits / self.of

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "share": self.share}

    @classmethod
    def of_verdicts(cls, verdicts: Sequence[Verdict]) -> "Share":
        """How many are regressed."""
        hits = sum(each.verdict == "regressed" for each in verdicts)
        return cls(hits, len(verdicts), *wilson(hits, len(verdicts)))


def play(
    differences: Mapping[Key, Sequence[float]], threshold: float | Mapping[Key, float] = THRESHOLD
) -> dict[Key, Verdict]:
    """The verdicts of a whole `ab` job over rounds that are there already: look after look, decided cases stay so.

    differences: LOOKS[-1] rounds of each case.
    """
    decided: dict[Key, Verdict] = {}
    found: dict[Key, Verdict] = {}
    for look in LOOKS:
        rounds = {key: decided[key].rounds if key in decided else look for key in differences}
        found = {**judge({key: each[: rounds[key]] for key, each in differences.items()}, threshold), **decided}
        decided |= {key: verdict for key, verdict in found.items() if not verdict.open}
    return found


def false_alarms(pools: Mapping[Key, Sequence[float]], generator: np.random.Generator, jobs: int = JOBS) -> Share:
    """How many comparisons of the same code the real rule calls regressed: A/A rounds drawn with random signs."""
    verdicts = [each for _ in range(jobs) for each in play(_drawn(pools, generator, signs=True)).values()]
    return Share.of_verdicts(verdicts)


def power(pools: Mapping[Key, Sequence[float]], generator: np.random.Generator, jobs: int = JOBS) -> Share:
    """How many comparisons with a slow-down the real rule calls regressed: its rounds drawn as they are."""
    verdicts = [each for _ in range(jobs) for each in play(_drawn(pools, generator, signs=False)).values()]
    return Share.of_verdicts(verdicts)


def _drawn(
    pools: Mapping[Key, Sequence[float]], generator: np.random.Generator, signs: bool
) -> dict[Key, Sequence[float]]:
    """As many rounds as the last look takes of each case. With signs, since either side could have been BASE."""
    drawn = {key: generator.choice(np.asarray(pool), LOOKS[-1]) for key, pool in pools.items()}
    if signs:
        drawn = {key: each * generator.choice((-1.0, 1.0), len(each)) for key, each in drawn.items()}
    return {key: each.tolist() for key, each in drawn.items()}


def deviation(pool: Sequence[float]) -> float:
    """s_d: the standard deviation of a round's difference, around 0, which is what A/A is."""
    return math.sqrt(statistics.fmean(each**2 for each in pool))


def summary(pools: Mapping[Key, Sequence[float]], generator: np.random.Generator, jobs: int = JOBS) -> dict[str, Any]:
    """A calibration from A/A pools: s_d, smallest detectable slow-down after each look, false alarms.

    s_d is the median over cases; `detectable_by_case` tells which case is noisier than the others.
    """
    deviations = {str(key): deviation(pool) for key, pool in pools.items()}
    s_d = statistics.median(deviations.values())
    return {
        "pairs": sum(len(pool) for pool in pools.values()),
        "cases": len(pools),
        "deviation": s_d,
        "rounds": LOOKS[-1],
        "detectable": smallest_detectable(s_d, LOOKS[-1]),
        "detectable_after": {str(look): smallest_detectable(s_d, look) for look in LOOKS},
        "detectable_by_case": {key: smallest_detectable(each, LOOKS[-1]) for key, each in deviations.items()},
        "false_alarms": false_alarms(pools, generator, jobs).to_json(),
        "power": None,
    }


def injected(
    pools: Mapping[Key, Sequence[float]], share: float, generator: np.random.Generator, jobs: int = JOBS
) -> dict[str, Any]:
    """What a slow-down that is known was found as. `measured` is the mean over all its rounds."""
    mean = statistics.fmean(each for pool in pools.values() for each in pool)
    return {"injected": share, "measured": math.expm1(mean), **power(pools, generator, jobs).to_json()}


def pooled(jobs: Iterable[Mapping[str, Any]], key: str) -> list[float]:
    """The canary differences of earlier `ab` jobs on machines of one testbed key, from their ab.json.

    For machines that live for one job: a canary is the baseline against itself. Jobs of another testbed, and those
    that were written without their rounds, give none.
    """
    return [
        float(each) for job in jobs if job.get("testbed_key") == key for each in job.get("canary_differences") or ()
    ]
