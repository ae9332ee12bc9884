"""reports.gate.trends against known truth: steady series, planted steps, and scipy's intervals."""

import numpy as np
import pytest
import scipy.stats

from mixprof.reports.gate.trends import CHANCE, LEAST, shift, steps_of
from mixprof.reports.statistics import wilson

NOISES = {
    "normal": lambda random, runs: random.standard_normal(runs),
    "heavy tails": lambda random, runs: random.standard_t(3, runs),
    "skewed": lambda random, runs: random.gamma(2.0, size=runs),
}


@pytest.mark.parametrize("noise", NOISES)
def test_a_series_that_did_not_change_is_seldom_said_to(noise):
    random = np.random.default_rng(7)
    alarms = sum(bool(steps_of((0.01 * NOISES[noise](random, 40)).tolist())) for _ in range(400))
    assert wilson(alarms, 400)[0] <= CHANCE
    assert alarms <= 5


@pytest.mark.parametrize("noise", NOISES)
def test_a_step_of_four_deviations_is_found_where_it_is_with_an_interval_that_holds_it(noise):
    random, hits, covered = np.random.default_rng(8), 0, 0
    deviation = {"normal": 1.0, "heavy tails": 1.5, "skewed": 1.4}[noise]
    for _ in range(100):
        values = 0.01 * NOISES[noise](random, 40) / deviation
        values[28:] += 0.04
        steps = steps_of(values.tolist())
        hits += len(steps) == 1 and abs(next(iter(steps)) - 28) <= 1
        covered += any(step.low <= 0.04 <= step.high for step in steps.values())
    assert hits >= 90
    assert covered >= 88


def test_two_steps_are_two_and_one_bad_run_is_none():
    values = 0.01 * np.random.default_rng(9).standard_normal(60)
    values[20:] += 0.1
    values[45:] -= 0.06
    values[50] += 1.0
    steps = steps_of(values.tolist())
    assert [pytest.approx(at, abs=1) for at in (20, 45)] == list(steps)
    assert [round(step.size, 1) for step in steps.values()] == [0.1, -0.1]
    assert steps_of(values[: 2 * LEAST - 1].tolist()) == {}


def test_the_shift_and_its_interval_are_those_of_the_rank_test():
    random = np.random.default_rng(10)
    before, after = random.standard_normal(12), random.standard_normal(9) + 1
    size, low, high = shift(before.tolist(), after.tolist())
    assert size == pytest.approx(np.median([y - x for x in before for y in after]))
    inside, outside = (
        [
            scipy.stats.mannwhitneyu(after - at, before, method="asymptotic", use_continuity=False).pvalue
            for at in places
        ]
        for places in ((low + 1e-9, high - 1e-9), (low - 0.1, high + 0.1))
    )
    assert min(inside) > 0.04
    assert max(outside) < 0.05
