"""Steady state, truncation and intervals, against numpy, scipy and simulated truth. A fake clock: no real time."""

import itertools

import numpy as np
import pytest
from scipy import stats

from profiler import sampling
from profiler.sampling import Budget


def run(times_ms, budget):
    """Sample a made-up sequence; the clock advances by what each sample takes."""
    now = 0.0
    source = iter(times_ms)

    def take():
        nonlocal now
        taken = next(source)
        now += taken / 1000
        return taken

    return sampling.sample(take, lambda: now, budget)


def test_constant_times_settle_after_the_minimum_of_work():
    series = run(itertools.repeat(10.0), Budget(min_work_s=0.5))
    assert series.steady
    assert sum(series.samples) >= 500.0
    assert set(series.kept) == {10.0}


def test_a_transient_is_waited_out_and_dropped():
    transient = [30.0 * 0.9**n for n in range(60)]
    noise = np.random.default_rng(0).normal(0, 0.05, 10_000)
    series = run((10 + t + e for t, e in zip(itertools.chain(transient, itertools.repeat(0.0)), noise, strict=False)),
                 Budget(min_work_s=0.5))  # fmt: skip
    assert series.steady
    assert series.dropped >= 20
    assert np.median(series.kept) == pytest.approx(10.0, rel=0.01)


def test_a_forward_that_becomes_slower_and_slower_is_not_steady():
    series = run((10.0 * 1.01**n for n in itertools.count()), Budget())
    assert not series.steady
    assert len(series.samples) >= 40


def test_slow_forwards_end_at_forty_samples_after_the_steady_state():
    rng = np.random.default_rng(1)
    series = run((1000 * float(np.exp(rng.normal(0, 0.5))) for _ in itertools.count()), Budget(target=1e-6))
    assert series.steady
    assert len(series.samples) <= 40 + 40 + 16


def test_fast_noisy_forwards_end_at_the_cap_of_time():
    rng = np.random.default_rng(2)
    series = run((float(np.exp(rng.normal(0, 0.5))) for _ in itertools.count()), Budget(target=1e-6, cap_s=2.0))
    assert series.steady
    assert 2.0 <= sum(series.samples) / 1000 <= 4.0


@pytest.mark.parametrize("dropped", [0, 20, 50])
def test_truncation_finds_where_a_step_ends(dropped):
    samples = [3.0] * dropped + list(np.random.default_rng(3).normal(1.0, 0.01, 200 - dropped))
    assert dropped <= sampling.truncation(samples) <= dropped + 40


def test_truncation_leaves_sixteen_samples():
    for length in range(16, 60):
        assert length - sampling.truncation(list(range(length, 0, -1))) >= 16


def test_the_interval_over_launches_is_the_t_interval_of_the_logs():
    medians = [1.0, 1.1, 0.95, 1.02]
    interval = sampling.over_launches(medians)
    logs = np.log(medians)
    low, high = stats.t.interval(0.95, 3, loc=logs.mean(), scale=stats.sem(logs))
    assert interval.estimate == pytest.approx(stats.gmean(medians))
    assert (interval.low, interval.high) == pytest.approx((np.exp(low), np.exp(high)))


def test_one_launch_has_no_interval_over_launches():
    with pytest.raises(ValueError, match="got 1 launches, expected at least 2"):
        sampling.over_launches([1.0])


def test_the_interval_within_a_launch_is_the_t_interval_of_batch_means_for_white_noise():
    # Sixteen samples are sixteen batches of one: s/sqrt(16) * t(0.975, 15) * the correction for autocorrelation.
    samples = np.random.default_rng(4).normal(10, 1, 16)
    interval = sampling.within_launch(samples)
    deviations = samples - samples.mean()
    rho = np.clip((deviations[:-1] @ deviations[1:]) / (deviations @ deviations) + 1 / 16, 0, 0.8)
    expected = stats.t.ppf(0.975, 15) * stats.sem(samples) * np.sqrt((1 + rho) / (1 - rho))
    assert interval.high - interval.estimate == pytest.approx(expected)
    assert interval.estimate == pytest.approx(np.median(samples))


@pytest.mark.parametrize("phi", [0.0, 0.9])
def test_the_interval_within_a_launch_covers_the_truth(phi):
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(400):
        noise = rng.normal(0, np.sqrt(1 - phi**2), 800)
        series = [rng.normal()]
        for each in noise[1:]:
            series.append(phi * series[-1] + each)
        interval = sampling.within_launch(100 + np.array(series))
        covered += interval.low <= 100 <= interval.high
    assert 0.90 <= covered / 400 <= 0.985


def test_outliers_do_not_widen_the_interval_without_bound():
    samples = list(np.random.default_rng(6).normal(10, 0.1, 160))
    samples[50:60] = [1000.0] * 10
    assert sampling.within_launch(samples).half_width < 0.05


def test_fewer_than_sixteen_samples_have_no_interval():
    with pytest.raises(ValueError, match="got 15 samples"):
        sampling.within_launch([1.0] * 15)


@pytest.mark.parametrize(("device", "target"), [("cpu", 0.05), ("cuda:0", 0.01)])
def test_targets_differ_by_device(device, target):
    assert sampling.budget(device).target == target
    assert sampling.budget(device, publication=True).target < target < sampling.budget(device, quick=True).target
