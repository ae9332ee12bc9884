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
        hits = sum(verdict.verdict == "regressed" for verdict in verdicts)
        return cls(hits, len(verdicts), *wilson(hits, len(verdicts)))


def play(
    differences: Mapping[Key, Sequence[float]], threshold: float | Mapping[Key, float] = THRESHOLD
) -> dict[Key, Verdict]:
    """The verdicts of a whole `ab` job over rounds that are there already: look after look, decided cases stay so.

    differences: LOOKS[-1] rounds of each case.
    """
    decided: dict[Key, Verdict] = {}
    verdicts: dict[Key, Verdict] = {}
    for look in LOOKS:
        rounds = {key: decided[key].rounds if key in decided else look for key in differences}
        verdicts = {**judge({key: pool[: rounds[key]] for key, pool in differences.items()}, threshold), **decided}
        decided |= {key: verdict for key, verdict in verdicts.items() if not verdict.open}
    return verdicts


def false_alarms(pools: Mapping[Key, Sequence[float]], generator: np.random.Generator, jobs: int = JOBS) -> Share:
    """How many comparisons of the same code the real rule calls regressed: A/A rounds drawn with random signs."""
    return _regressed(pools, generator, jobs, signs=True)


def power(pools: Mapping[Key, Sequence[float]], generator: np.random.Generator, jobs: int = JOBS) -> Share:
    """How many comparisons with a slow-down the real rule calls regressed: its rounds drawn as they are."""
    return _regressed(pools, generator, jobs, signs=False)


def _regressed(pools: Mapping[Key, Sequence[float]], generator: np.random.Generator, jobs: int, signs: bool) -> Share:
    """Of jobs with as many rounds of each case as the last look takes. signs: either side could have been BASE."""
    verdicts: list[Verdict] = []
    for _ in range(jobs):
        drawn = {key: generator.choice(np.asarray(pool), LOOKS[-1]) for key, pool in pools.items()}
        if signs:
            drawn = {key: pool * generator.choice((-1.0, 1.0), len(pool)) for key, pool in drawn.items()}
        verdicts += play({key: pool.tolist() for key, pool in drawn.items()}).values()
    return Share.of_verdicts(verdicts)


def deviation(pool: Sequence[float]) -> float:
    """s_d: the standard deviation of a round's difference, around 0, which is what A/A is."""
    return math.sqrt(statistics.fmean(difference**2 for difference in pool))


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
        "detectable_by_case": {key: smallest_detectable(value, LOOKS[-1]) for key, value in deviations.items()},
        "false_alarms": false_alarms(pools, generator, jobs).to_json(),
        "power": None,
    }


def injected(
    pools: Mapping[Key, Sequence[float]], share: float, generator: np.random.Generator, jobs: int = JOBS
) -> dict[str, Any]:
    """What a slow-down that is known was found as. `measured` is the mean over all its rounds."""
    mean = statistics.fmean(difference for pool in pools.values() for difference in pool)
    return {"injected": share, "measured": math.expm1(mean), **power(pools, generator, jobs).to_json()}


def pooled(jobs: Iterable[Mapping[str, Any]], key: str) -> list[float]:
    """The canary differences of earlier `ab` jobs on machines of one testbed key, from their ab.json.

    For machines that live for one job: a canary is the baseline against itself. Jobs of another testbed, and those
    that were written without their rounds, give none.
    """
    own = [job for job in jobs if job.get("testbed_key") == key]
    return [float(difference) for job in own for difference in job.get("canary_differences") or ()]
