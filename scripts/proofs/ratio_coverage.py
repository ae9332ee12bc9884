"""How often the intervals of latencies and ratios hold the truth, and how wide they are: scripts/proofs/noise.py.

    python scripts/proofs/ratio_coverage.py [--quick] [--replicates N] [--profile "hosted CPU"]

Prints a Markdown table; exit code 1 where less than 93 or more than 97 % of the intervals hold the truth (with --quick:
where the Wilson interval of that share lies outside), or, of two cases, where fewer than before do: such a sweep lasts
no longer than the machine's slow terms, which nothing in it can see. Each replicate is a sweep of 2, 12 or 50 cases in
three rounds of launches of 100 iterations. To the noise of the profile each case adds a deviation from launch to launch
of its own, drawn log-normally over cases (0.5) around twice the profile's launch effect, and the first case's is five
times as large. Rounds share the machine's drift, and with `drift` a factor of their own as well, log-normal with 8 %.

- ours: what a report prints, mixprof.reports.statistics.contrast of a case, and of a case against the next.
- before: a t interval over each case's own launches; of a ratio Welch's of the two, degrees of freedom after
  Satterthwaite. Its coverage and ours stand over the same replicates.
- noisy: the share of ours that hold the truth among those of the first case.
- width: the median of our widths over the median of those before, in logarithms. known: the same of intervals that know
  every variance, 1.96 standard errors either way: about as narrow as an interval of this coverage can be.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from mixprof.reports.statistics import LEAST_CASES, Points, contrast, half_width, measured, wilson
from noise import PROFILES, Profile, case_truth, replicates, sweep_medians

ROUNDS, ITERATIONS = 3, 100
CASES = (2, 12, 50)
SPREAD, NOISY, DRIFT = 0.5, 5.0, 0.08
REQUIRED = 0.93, 0.97
CHUNK = 50  # sweeps at once
HEADER = ["cases", "drift", "what", "ours %", "[95 %]", "noisy %", "before %", "width", "known"]


@dataclass(frozen=True)
class Sweeps:
    """Simulated sweeps: log medians around a truth of 0, and the variances of a case's mean that were put in."""

    logs: np.ndarray  # (sweeps, cases, rounds)
    own: np.ndarray  # (sweeps, cases): of the mean over rounds
    shared: float


def simulate(profile: Profile, rng: np.random.Generator, sweeps: int, cases: int, drift: float) -> Sweeps:
    """Sweeps of this profile whose cases are unequally noisy."""
    base = sweep_medians(profile, rng, (sweeps, cases, ROUNDS), cases, ITERATIONS) - case_truth(profile)
    deviations = 2 * profile.launch * np.exp(SPREAD * rng.standard_normal((sweeps, cases)))
    deviations[:, 0] *= NOISY
    own = deviations[..., None] * rng.standard_normal(base.shape)
    shared = drift * rng.standard_normal((sweeps, 1, ROUNDS))
    return Sweeps(base + own + shared, deviations**2 / ROUNDS, drift**2 / ROUNDS)


def half_widths(logs: np.ndarray, cases: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """What a report prints of these sums of cases. cases: (m, n), weights: (n,) -> (sweeps, m)."""
    chunks = np.array_split(logs, -(-len(logs) // CHUNK))
    return np.concatenate([half_width(*contrast(weights, _of(measured(part), cases))) for part in chunks])


def _of(points: Points, cases: np.ndarray) -> Points:
    return points.at((slice(None), cases))


def half_widths_before(logs: np.ndarray, cases: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Welch's, of each case's own launches: (V^2 / sum(v^2 / f)) degrees of freedom."""
    variances = (weights**2 * logs.var(axis=-1, ddof=1)[:, cases]) / ROUNDS
    total = variances.sum(axis=-1)
    freedom = total**2 / (variances**2 / (ROUNDS - 1)).sum(axis=-1)
    return np.asarray(student.ppf(0.975, freedom) * np.sqrt(total))


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    cases: int
    drift: float
    what: str
    held: np.ndarray  # (sweeps, m)
    held_before: np.ndarray
    width: float
    known: float

    def met(self, quick: bool) -> bool:
        if self.cases < LEAST_CASES:
            return bool(self.held.mean() >= min(REQUIRED[0], self.held_before.mean()))
        share = float(self.held.mean())
        low, high = wilson(int(self.held.sum()), self.held.size) if quick else (share, share)
        return low <= REQUIRED[1] and high >= REQUIRED[0]

    def cells(self) -> list[str]:
        low, high = wilson(int(self.held.sum()), self.held.size)
        shares = (f"{100 * held.mean():.1f}" for held in (self.held, self.held[:, 0], self.held_before))
        ours, noisy, before = shares
        widths = f"{self.width:.2f}", f"{self.known:.2f}"
        drift = f"{self.drift:.0%}"
        return [str(self.cases), drift, self.what, ours, f"{100 * low:.1f} to {100 * high:.1f}", noisy, before, *widths]


def rows(profile: Profile, sweeps: int, cases: Sequence[int] = CASES) -> Iterator[Row]:
    """Every row of the table."""
    for count in cases:
        for drift in (0.0, DRIFT):
            rng = np.random.default_rng([count, round(100 * drift)])
            simulated = simulate(profile, rng, sweeps, count, drift)
            each = np.arange(count)[:, None]
            yield _row("latency", simulated, each, np.ones(1), drift)
            yield _row("ratio", simulated, np.hstack([each, np.roll(each, -1)]), np.array([1.0, -1.0]), drift)


def _row(what: str, simulated: Sweeps, cases: np.ndarray, weights: np.ndarray, drift: float) -> Row:
    sums = (simulated.logs.mean(axis=-1)[:, cases] * weights).sum(axis=-1)
    ours, before = (of(simulated.logs, cases, weights) for of in (half_widths, half_widths_before))
    variances = simulated.own[:, cases].sum(axis=-1) + weights.sum() ** 2 * simulated.shared
    profile = max(0.0, float((sums**2 - variances).mean()))  # what the profile's own terms add, as simulated
    known = 1.96 * np.sqrt(variances + profile)
    held = np.abs(sums) <= ours, np.abs(sums) <= before
    widths = (float(np.median(halves) / np.median(before)) for halves in (ours, known))
    return Row(simulated.logs.shape[1], drift, what, *held, *widths)


def main() -> int:
    options = replicates(__doc__, profile=True)
    print(f"{options.profile}, {options.replicates} sweeps\n")
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}", flush=True)
    missed = []
    for row in rows(PROFILES[options.profile], options.replicates):
        print(f"| {' | '.join(row.cells())} |", flush=True)
        if not row.met(options.quick):
            missed.append(f"{row.cases} cases, drift {row.drift:.0%}: {row.what}")
    print(f"\n{'missed: ' + '; '.join(missed) if missed else 'all required rates met'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
