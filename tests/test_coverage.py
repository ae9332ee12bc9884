"""The simulated noise has the moments of its model, and our intervals hold the truth as often as they say."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from mixprof import sampling

sys.path.append(str(Path(__file__).parents[1] / "scripts" / "proofs"))

import interval_coverage as coverage
import noise
from noise import PROFILES, Job, Profile

GPU = "dedicated GPU"
REPLICATES = 300
profiles = pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES.keys())


def within_binomial_bounds(successes: int, trials: int, low: float, high: float) -> bool:
    """Whether a rate between low and high gives such a count in all but one of a thousand runs."""
    return bool(stats.binom.ppf(0.0005, trials, low) <= successes <= stats.binom.ppf(0.9995, trials, high))


@pytest.mark.parametrize(("deviation", "memory"), [(0.003, 0.9), (0.02, 0.999)])
def test_autocorrelated_terms_have_the_variance_and_autocorrelation_of_an_ar1(deviation, memory):
    rng = np.random.default_rng(0)
    series = noise.ar1(rng, deviation, memory, 200, rng.normal(0, deviation, 20_000))
    for slot in (0, 199):
        assert series[:, slot].std() == pytest.approx(deviation, rel=0.03)
    for lag in (1, 10, 199):
        assert np.corrcoef(series[:, 0], series[:, lag])[0, 1] == pytest.approx(memory**lag, abs=0.03)


def test_autocorrelated_terms_go_on_where_they_were():
    rng = np.random.default_rng(1)
    before = rng.normal(0, 1, 20_000)
    assert np.corrcoef(before, noise.ar1(rng, 1.0, 0.9, 3, before)[:, 0])[0, 1] == pytest.approx(0.9, abs=0.01)


@profiles
def test_bursts_start_and_end_at_their_rates(profile):
    on = noise.bursts(np.random.default_rng(2), profile.burst_rate, 2_000_000, np.array([False]))[0]
    starts = np.count_nonzero(on[1:] & ~on[:-1])
    assert starts / np.count_nonzero(~on) == pytest.approx(profile.burst_rate, rel=0.12)
    assert np.count_nonzero(on) / starts == pytest.approx(noise.BURST_LENGTH, rel=0.12)
    assert on.mean() == pytest.approx(noise.burst_share(profile), rel=0.2)


def test_a_burst_goes_on_where_it_was():
    on = noise.bursts(np.random.default_rng(3), 1e-9, 2, np.ones(10_000, dtype=bool))
    assert on.mean(axis=0) == pytest.approx([0.95, 0.95**2], abs=0.015)


@profiles
def test_iterations_have_the_quartiles_of_student_t_and_one_spike_in_a_hundred(profile):
    values = noise.iterations(np.random.default_rng(4), profile, (500_000,)) / profile.iteration * np.sqrt(3)
    assert np.quantile(values, 0.25) == pytest.approx(stats.t.ppf(0.25 / 0.99, 3), abs=0.02)
    far = 0.3 / profile.iteration * np.sqrt(3)
    expected = 0.01 * np.exp(-3) + stats.t.sf(far, 3)
    assert np.mean(values > far) == pytest.approx(expected, rel=0.15)


@profiles
def test_launches_differ_by_their_effect_and_their_mode(profile):
    rng = np.random.default_rng(5)
    truths = np.array([Job(profile, rng, 1).launch().truth for _ in range(20_000)])
    assert truths.mean() == pytest.approx(noise.case_truth(profile), abs=0.0005)
    variance = profile.launch**2 + profile.mode_rate * (1 - profile.mode_rate) * profile.mode**2
    assert truths.std() == pytest.approx(np.sqrt(variance), rel=0.03)


@profiles
def test_the_truth_of_a_launch_is_the_median_of_a_long_one_without_drift_and_slow_terms(profile):
    job = Job(replace(profile, drift=0.0, slow=0.0), np.random.default_rng(6), 1)
    launch = job.launch()
    assert np.median(launch.first(300_000)) == pytest.approx(launch.truth, abs=0.05 * profile.iteration + 2e-4)


def test_the_machine_drifts_over_the_job_and_forgets_its_slow_term_between_launches():
    still = Profile(0.03, 0.0, 0.0, 0.0, 1e-9, 0.0, 0.0, 0.0, 0.0)
    job = Job(still, np.random.default_rng(7), slots=1001)
    ramp = [job.background(1)[0], job.background(999)[-1], job.background(1)[0]]
    assert ramp == pytest.approx([-0.015, 0.015 - 3e-5, 0.015])
    slow = []
    for seed in range(4000):
        job = Job(replace(still, drift=0.0, slow=1.0), np.random.default_rng(seed), slots=2000)
        before = job.slow[0]
        job.idle(500)
        slow.append((before, job.slow[0]))
    assert np.corrcoef(np.array(slow).T)[0, 1] == pytest.approx(0.999**500, abs=0.04)


def test_separate_jobs_have_offsets():
    offsets = [Job(PROFILES[GPU], np.random.default_rng(s), 1, separate=True).offset for s in range(2000)]
    assert np.std(offsets) == pytest.approx(0.01, rel=0.05)
    assert Job(PROFILES[GPU], np.random.default_rng(0), 1).offset == 0.0


def test_a_launch_is_the_same_for_whoever_asks_however_they_ask():
    launches = [Job(PROFILES[GPU], np.random.default_rng(8), 5000).launch() for _ in range(2)]
    one, other = launches
    piecewise = [one.first(n + 1)[n] for n in range(600)]
    assert np.array_equal(piecewise, other.first(600)[:600])


@pytest.mark.parametrize("slow", [False, True])
def test_the_interval_within_a_launch_holds_its_truth(slow):
    profile = PROFILES[GPU] if slow else replace(PROFILES[GPU], slow=0.0, drift=0.0)
    tool = coverage.ours_on_average if slow else coverage.ours_as_it_was
    rng = np.random.default_rng(9)
    results, truths = coverage.one_launch(GPU, 10.0, {"ours": tool}, profile, REPLICATES, rng)
    found = coverage.coverage(results["ours"], truths)
    assert found is not None
    held = round(found[0] * REPLICATES)
    assert within_binomial_bounds(held, REPLICATES, 0.93, 0.97)


def test_the_interval_over_launches_holds_the_truth_of_the_case():
    rng = np.random.default_rng(10)
    truth = 10.0 * np.exp(noise.case_truth(PROFILES[GPU]))
    results = [coverage.one_case(GPU, 3, coverage.SWEEP_CASES, rng) for _ in range(REPLICATES)]
    held = sum(r.low <= truth <= r.high for r in results)
    assert within_binomial_bounds(held, REPLICATES, 0.93, 0.97)


def naive_t(values: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return values.mean() - half, values.mean() + half


def percentile_bootstrap(values: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    medians = np.median(rng.choice(values, (200, len(values))), axis=1)
    return tuple(np.quantile(medians, (0.025, 0.975)))


@pytest.mark.parametrize("interval", [naive_t, percentile_bootstrap])
def test_intervals_that_take_iterations_for_independent_do_not_hold(
    interval: Callable[[np.ndarray, np.random.Generator], tuple[float, float]],
):
    rng = np.random.default_rng(11)
    series = noise.ar1(rng, 0.003, 0.9, 120, rng.normal(0, 0.003, REPLICATES))
    held = sum(low <= 0 <= high for low, high in (interval(values, rng) for values in series))
    assert held / REPLICATES < 0.6
    assert not within_binomial_bounds(held, REPLICATES, 0.93, 0.97)
    ours = [sampling.within_launch(np.exp(values)) for values in series]
    assert within_binomial_bounds(sum(o.low <= 1 <= o.high for o in ours), REPLICATES, 0.93, 0.97)


def test_a_rate_is_judged_by_its_estimate_or_with_few_replicates_by_its_interval():
    assert coverage.meets((0.95, 0.94, 0.96), quick=False)
    assert not coverage.meets((0.92, 0.90, 0.94), quick=False)
    assert coverage.meets((0.92, 0.90, 0.94), quick=True)
    assert not coverage.meets((0.99, 0.98, 1.0), quick=True)


def test_the_other_tools_stop_where_their_rules_say():
    launch = Job(PROFILES[GPU], np.random.default_rng(12), 5000).launch()
    said = {tool: run(coverage.Stopwatch(launch, 10.0), "cuda:0") for tool, run in coverage.OTHERS.items()}
    assert said["adaptive_autorange"].samples >= 4
    assert said["pytest-benchmark"].samples == np.ceil(100 / np.exp(launch.first(1)[0]))
    assert said["timeit, best of 5"].samples in (100, 250)  # 5 times the first of 20 and 50 above 0.2 s
    assert said["timeit, best of 5"].estimate < said["pytest-benchmark"].estimate
