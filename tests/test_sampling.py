"""Steady state, truncation and intervals, against numpy, scipy and simulated truth. A fake clock: no real time."""

import itertools

import numpy as np
import pytest
from scipy import stats

from mixprof import sampling
from mixprof.sampling import Budget


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


def test_truncation_drops_nothing_of_what_is_steady():
    rng = np.random.default_rng(8)
    dropped = [sampling.truncation(10 + ar1(rng, 0.9, length)) for length in (40, 72, 200) for _ in range(100)]
    assert np.mean(np.array(dropped) == 0) > 0.98


def test_truncation_leaves_sixteen_samples():
    for length in range(16, 60):
        assert length - sampling.truncation(list(range(length, 0, -1))) >= 16


def test_the_interval_within_a_launch_is_the_t_interval_of_batch_medians_where_they_are_uncorrelated():
    # 16 batches of 100: sixteen medians whose correlation at lag 1 is far below zero count as white noise, V = 1.
    levels = np.array([1.0, -1, 2, -2, 1.5, -1.5, 1, -1, 2, -2, 1, -1, 1.5, -1.5, 2, -2])
    interval = sampling.within_launch(np.repeat(10 + 0.01 * levels, 100))
    expected = stats.t.ppf(0.975, 15) * stats.sem(0.01 * levels) / np.sqrt(1 - 1 / 16)
    assert interval.high - interval.estimate == pytest.approx(expected, rel=1e-3)
    assert interval.estimate == pytest.approx(10)


def ar1(rng, phi, length):
    """Unit variance, autocorrelation phi."""
    series = [rng.normal()]
    for each in rng.normal(0, np.sqrt(1 - phi**2), length - 1):
        series.append(phi * series[-1] + each)
    return np.array(series)


# 64 samples are fewer than four correlation times of phi = 0.9; of independent ones the interval is too wide.
@pytest.mark.parametrize(("phi", "length", "most"),
                         [(0.0, 800, 0.985), (0.9, 800, 0.985), (0.9, 64, 0.985), (0.0, 64, 1.0)])  # fmt: skip
def test_the_interval_within_a_launch_covers_the_truth(phi, length, most):
    rng = np.random.default_rng(5)
    intervals = [sampling.within_launch(100 + ar1(rng, phi, length)) for _ in range(400)]
    assert 0.92 <= sum(i.low <= 100 <= i.high for i in intervals) / 400 <= most


def test_what_a_launch_cannot_see_widens_its_interval_and_averages_out_slowly():
    samples = 10 + np.random.default_rng(7).normal(0, 0.01, 3000)
    seen, all_of_it = sampling.within_launch(samples), sampling.within_launch(samples, unseen=0.02)
    assert all_of_it.estimate == seen.estimate
    added = all_of_it.half_width**2 - seen.half_width**2
    assert added == pytest.approx((1.96 * 0.02) ** 2 / 2, rel=1e-6)


@pytest.mark.parametrize(("memory", "count"), [(1000, 120), (1000, 1200)])
def test_what_is_left_of_a_slow_term_is_the_variance_of_its_mean(memory, count):
    lags = np.arange(1, count)
    variance = (1 + 2 * float((1 - lags / count) @ (1 - 1 / memory) ** lags)) / count
    assert 1 / (1 + count / sampling.UNSEEN_SAMPLES) == pytest.approx(variance, rel=0.05)


def test_a_cpu_hides_more_than_a_gpu():
    assert sampling.unseen("cpu") > sampling.unseen("cuda:0") > 0


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


def test_the_quantile_that_is_written_down_is_students():
    stats = pytest.importorskip("scipy.stats")
    assert stats.t.ppf(0.975, sampling.BATCHES - 1) == pytest.approx(sampling.T_975, rel=1e-12)
