"""Intervals of exponents and crossovers hold the truth as often as they say, on simulated noise."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

sys.path.append(str(Path(__file__).parents[1] / "scripts" / "proofs"))

import exponent_coverage
import noise
from exponent_coverage import AT_LEAST, Rate

REPLICATES = 300


def within_binomial_bounds(rate: Rate) -> bool:
    """Whether a rate as required gives such a count in all but one of a thousand runs."""
    low, high = rate.required
    return bool(stats.binom.ppf(0.0005, rate.of, low) <= rate.held <= stats.binom.ppf(0.9995, rate.of, high))


@pytest.mark.parametrize("launches", [3, 8])
@pytest.mark.parametrize("profile", noise.PROFILES.values(), ids=noise.PROFILES.keys())
def test_exponents_breaks_and_crossovers_are_found_where_they_are(profile, launches):
    rates = list(exponent_coverage.rates(exponent_coverage.noise_of(profile, launches, REPLICATES)))
    assert len(rates) == 2 * len(exponent_coverage.LINES) + 2 * len(exponent_coverage.BREAKS) + 2 * len(
        exponent_coverage.CROSSINGS
    ) + len(exponent_coverage.NO_CROSSINGS)
    assert [rate for rate in rates if not within_binomial_bounds(rate)] == []


def test_a_sweep_at_once_has_the_noise_of_its_launches_one_by_one():
    profile, count = noise.PROFILES["hosted CPU"], 1500
    medians = noise.sweep_medians(profile, np.random.default_rng(0), (count, 2, 3), 10, 100)
    alone = []
    for seed in range(count):
        job = noise.Job(profile, np.random.default_rng(seed), 3 * 10 * 150)
        job.idle(int(job.rng.integers(9 * 150)))  # anywhere in the first round
        alone.append(np.median(job.launch().first(100)[:100]))
    first = medians[:, 0, 0]
    assert first.std() == pytest.approx(np.std(alone), rel=0.12)
    assert first.mean() == pytest.approx(np.mean(alone), abs=4 * np.std(alone) / np.sqrt(count) * np.sqrt(2))
    assert medians[..., 2].mean() - medians[..., 0].mean() == pytest.approx(2 / 3 * profile.drift, abs=0.004)


def test_a_rate_that_must_be_reached_may_be_exceeded():
    assert Rate("break", "", 300, 300, AT_LEAST).met(quick=False)
    assert not Rate("break", "", 280, 300, AT_LEAST).met(quick=False)
    assert Rate("break", "", 280, 300, AT_LEAST).met(quick=True)
