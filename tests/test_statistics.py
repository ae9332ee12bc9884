"""reports.statistics against scipy, closed forms and simulated truth."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from mixprof.reports import statistics
from mixprof.reports.statistics import FIRST_OVER_SECOND, Points, contrast, half_width, measured, moderated

sys.path.append(str(Path(__file__).parents[1] / "scripts" / "proofs"))

import ratio_coverage
from noise import PROFILES

ONE = np.ones(1)


def bounds(error, freedom):
    return float(error * stats.t.ppf(0.975, freedom))


def noise(cases, rounds=3, seed=0, spread=0.01):
    return spread * np.random.default_rng(seed).standard_normal((cases, rounds))


@pytest.mark.parametrize("freedom", [1.0, 2.0, 3.7, 40.0])
def test_quantiles_and_chances_are_those_of_t(freedom):
    assert statistics.t_quantile(freedom, 0.975) == pytest.approx(stats.t.ppf(0.975, freedom))
    assert statistics.t_chance(freedom, -1.3) == pytest.approx(stats.t.cdf(-1.3, freedom))


def test_the_interval_over_launches_is_the_t_interval_of_the_logs():
    medians = [1.0, 1.1, 0.95, 1.02]
    interval = statistics.over_launches(medians)
    low, high = stats.t.interval(0.95, 3, loc=np.log(medians).mean(), scale=stats.sem(np.log(medians)))
    assert interval.estimate == pytest.approx(stats.gmean(medians))
    assert (interval.low, interval.high) == pytest.approx((np.exp(low), np.exp(high)))
    with pytest.raises(ValueError, match="got 1 launches, expected at least 2"):
        statistics.over_launches([1.0])


@pytest.mark.parametrize(("hits", "of"), [(0, 400), (1, 400), (7, 20), (20, 20)])
def test_the_ends_of_wilsons_interval_are_the_shares_that_the_hits_are_just_compatible_with(hits, of):
    for end in statistics.wilson(hits, of):
        deviations = (hits / of - end) ** 2 - 1.959964**2 * end * (1 - end) / of
        assert deviations == pytest.approx(0.0, abs=1e-9)
    with pytest.raises(ValueError, match="0 of 0"):
        statistics.wilson(0, 0)


@pytest.mark.parametrize("seed", range(20))
def test_discoveries_are_all_up_to_the_last_below_its_own_step(seed):
    chances = np.random.default_rng(seed).uniform(0, 1, 12) ** 3 * 0.02
    ordered = np.sort(chances)
    below = np.flatnonzero(ordered <= 0.0025 * np.arange(1, 13) / 12)
    expected = set(np.flatnonzero(chances <= ordered[below[-1]])) if len(below) else set()
    assert statistics.discoveries(dict(enumerate(chances)), 0.0025) == expected
    assert statistics.discoveries({}, 0.0025) == set()


def test_with_many_cases_moderation_is_smyths_posterior_of_the_prior_they_were_drawn_from():
    random, prior, freedom = np.random.default_rng(1), 8.0, 2.0
    truths = prior * 1e-4 / random.chisquare(prior, 3000)
    seen = truths * random.chisquare(freedom, 3000) / freedom
    found, freedoms = moderated(seen, np.full(3000, freedom))
    usual = freedoms != freedom  # what stands out stays as it is
    posterior = (prior * 1e-4 + freedom * seen) / (prior + freedom)
    assert usual.mean() == pytest.approx(1 - statistics.STANDS_OUT, abs=0.02)
    assert found[usual] == pytest.approx(posterior[usual], rel=0.08)
    assert freedoms[usual] == pytest.approx(prior + freedom, rel=0.12)


def test_equal_variances_are_taken_for_one_and_a_case_that_stands_out_keeps_its_own():
    random = np.random.default_rng(2)
    seen = 1e-4 * random.chisquare(2, 50) / 2
    seen[7] = 1e-2
    found, freedoms = moderated(seen, np.full(50, 2.0))
    assert (found[7], freedoms[7]) == (1e-2, 2.0)
    usual = freedoms != 2.0
    assert found[usual] == pytest.approx(1e-4, rel=0.5)
    assert freedoms[usual].min() > 4


def test_variances_of_nothing_are_nothing():
    found, freedoms = moderated(np.zeros(12), np.full(12, 2.0))
    assert (found < 1e-15).all()
    assert np.isfinite(freedoms).all()


@pytest.mark.parametrize("cases", [2, 7])
def test_too_few_cases_have_plain_t_intervals_of_launches_and_of_rounds(cases):
    logs = noise(cases)
    points = measured(logs)
    error, freedom = contrast(ONE, points.at(np.arange(cases)[:, None]))
    assert error == pytest.approx(stats.sem(logs, axis=-1))
    assert freedom == pytest.approx(np.full(cases, 2.0))
    paired = stats.ttest_rel(logs[0], logs[1]).confidence_interval(0.95)
    error, freedom = contrast(FIRST_OVER_SECOND, points.at(np.array([0, 1])))
    assert 2 * bounds(error, freedom) == pytest.approx(paired.high - paired.low)


@pytest.mark.parametrize("cases", [2, 12])
def test_what_the_rounds_share_is_no_error_of_a_ratio_and_all_of_it_one_of_a_latency(cases):
    logs, drift = noise(cases), 0.08 * np.array([1.0, -1.0, 0.0])
    calm, drifting = (measured(each) for each in (logs, logs + drift))
    pair = np.array([0, 1])
    expected = [float(each) for each in contrast(FIRST_OVER_SECOND, calm.at(pair))]
    assert [float(each) for each in contrast(FIRST_OVER_SECOND, drifting.at(pair))] == pytest.approx(expected)
    error, freedom = contrast(ONE, drifting.at(np.array([0])))
    assert error == pytest.approx(stats.sem(drift), rel=0.15)
    assert freedom == pytest.approx(2.0, abs=0.3)


def test_shared_parts_cancel_within_a_group_and_add_up_between_groups():
    ones = np.ones(2)
    parts = np.zeros(2), 0.01 * ones, 9 * ones, 0.04 * ones, 2 * ones
    same, apart = (Points(*parts, np.array(groups)) for groups in ([0, 0], [0, 1]))
    assert contrast(FIRST_OVER_SECOND, same)[0] == pytest.approx(np.hypot(0.01, 0.01))
    assert contrast(FIRST_OVER_SECOND, apart)[0] == pytest.approx(np.sqrt(2 * 0.01**2 + 2 * 0.04))
    assert contrast(ones, same)[0] == pytest.approx(np.sqrt(2 * 0.01**2 + 4 * 0.04))


def test_the_degrees_of_freedom_are_those_of_the_part_that_dominates():
    points = Points.independent(np.zeros(2), np.array([1.0, 1e-6]), np.array([2.0, 30.0]))
    error, freedom = contrast(FIRST_OVER_SECOND, points)
    assert (float(error), float(freedom)) == pytest.approx((1.0, 2.0), rel=1e-3)
    exact = Points.independent(np.zeros(2), np.zeros(2), np.array([5.0, 3.0]))
    assert half_width(*contrast(FIRST_OVER_SECOND, exact)) == 0


def test_many_sweeps_are_measured_as_each_alone():
    logs = np.random.default_rng(3).standard_normal((4, 12, 3))
    together = measured(logs)
    for each in range(4):
        alone = measured(logs[each])
        assert alone.errors == pytest.approx(together.errors[each])
        assert alone.shared == pytest.approx(together.shared[each])


def test_intervals_hold_the_truth_and_those_of_ratios_are_less_than_half_as_wide_under_drift():
    rows = [*ratio_coverage.rows(PROFILES["hosted CPU"], 150, cases=(12,))]
    for row in rows:
        assert row.met(quick=True)
        assert row.width < (0.5 if row.what == "ratio" and row.drift else 0.9)
