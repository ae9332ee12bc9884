"""reports.gate.history against exhaustive search, scipy, closed forms, and the noise model of MEASUREMENT.md."""

import itertools
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

sys.path.append(str(Path(__file__).parents[1] / "scripts" / "proofs"))

from mixprof.reports.gate.history import (
    ALARM,
    LEAST_RUNS,
    LEAST_SPREAD,
    PENALTY,
    RATE,
    SLACK,
    WINDOW,
    Level,
    accumulate,
    changes,
    creeps,
    detectable,
    judge,
    level,
)
from mixprof.reports.statistics import wilson
from noise import PROFILES, Job

CASES = 12


def normal(runs, spread=0.01, seed=0, center=-0.5):
    return (center + spread * np.random.default_rng(seed).standard_normal(runs)).tolist()


def level_of(values):
    return level(values, [0.0] * len(values))


def test_a_level_is_the_median_and_mad_of_the_last_thirty():
    values = normal(50)
    found = level_of(values)
    assert found.center == np.median(values[-WINDOW:])
    expected = scipy.stats.median_abs_deviation(values[-WINDOW:], scale="normal")
    assert found.spread == pytest.approx(expected, rel=1e-4)
    assert (found.runs, found.began, found.step) == (WINDOW, 0, None)


def test_a_run_is_judged_by_a_t_of_its_distance_widened_for_the_median():
    base = Level(-0.5, 0.01, 16)
    found = judge({"a": base}, {"a": (-0.46, 0.0)})["a"]
    deviation = 0.01 * math.sqrt(1 + 1.57 / 16)
    t = scipy.stats.t(15)
    assert found.p == pytest.approx(t.sf(0.04 / deviation))
    assert (found.low, found.high) == pytest.approx(tuple(np.expm1(0.04 + deviation * np.array(t.interval(0.95)))))
    assert found.change == pytest.approx(math.expm1(0.04))
    assert (found.verdict, found.rounds) == ("regressed", 16)
    assert judge({"a": base}, {"a": (-0.54, 0.0)})["a"].verdict == "improved"
    assert judge({"a": base}, {"a": (-0.5, 0.0)})["a"].verdict == "same"
    assert judge({"a": Level(-0.5, 0.05, 16)}, {"a": (-0.46, 0.0)})["a"].verdict == "inconclusive"


def test_the_widening_is_the_variance_of_a_run_and_of_a_median():
    draws = np.random.default_rng(1).standard_normal((40_000, 16))
    spread = (draws[:, 0] - np.median(draws[:, 1:], axis=1)).std()
    assert spread == pytest.approx(math.sqrt(1 + 1.57 / 15), rel=0.01)


def test_a_run_that_is_unsure_of_itself_is_judged_by_its_own_error():
    base = Level(0.0, 0.001, 16)
    assert judge({"a": base}, {"a": (0.05, 0.0)})["a"].verdict == "regressed"
    assert judge({"a": base}, {"a": (0.05, 0.04)})["a"].verdict == "inconclusive"


def test_fewer_than_eight_stored_runs_judge_no_time():
    assert LEAST_RUNS == 8
    assert judge({"a": Level(0.0, 0.001, 7), "b": Level(0.0, 0.001, 8)}, {"a": (1, 0), "b": (1, 0)}).keys() == {"b"}


def test_a_significant_change_below_the_threshold_is_no_alarm():
    base = {"a": Level(0.0, 0.001, 30)}
    assert judge(base, {"a": (0.015, 0.0)})["a"].verdict == "same"
    assert judge(base, {"a": (0.015, 0.0)}, 0.01)["a"].verdict == "regressed"


def test_identical_runs_have_no_spread_and_still_a_verdict():
    found = level_of([-0.5] * 10)
    assert judge({"a": found}, {"a": (-0.5, 0.0)})["a"].verdict == "same"
    assert judge({"a": found}, {"a": (-0.4, 0.0)})["a"].verdict == "regressed"


def exhaustive(values, least):
    """The best partition by trying them all, with numpy's median."""
    unit = max(1.4826 * np.median(np.abs(np.diff(values))) / math.sqrt(2), LEAST_SPREAD)
    penalty = PENALTY * math.log(len(values)) * unit
    best: tuple[float, tuple[int, ...]] = (math.inf, ())
    for count in range(len(values) // least):
        for cuts in itertools.combinations(range(1, len(values)), count):
            parts = np.split(np.asarray(values), cuts)
            if min(map(len, parts)) >= least:
                cost = sum(np.abs(part - np.median(part)).sum() for part in parts) + penalty * count
                best = min(best, (float(cost), cuts))
    return list(best[1])


@pytest.mark.parametrize("seed", range(20))
def test_changes_are_those_of_the_best_of_all_partitions(seed):
    random = np.random.default_rng(seed)
    steps = np.repeat(random.normal(0, 0.08, 3), (5, 6, 4))
    values = (steps + 0.01 * random.standard_normal(15)).tolist()
    assert changes(values, least=3) == exhaustive(values, 3)


def test_a_step_starts_a_new_level_and_one_bad_run_does_not():
    quiet = normal(20)
    assert changes([*quiet[:10], quiet[10] + 0.3, *quiet[11:]]) == []
    found = level_of([*quiet, *normal(10, seed=1, center=-0.45)])
    assert found.began == pytest.approx(20, abs=1)
    assert found.center == pytest.approx(-0.45, abs=0.01)
    assert found.step == pytest.approx(0.05, abs=0.01)
    assert found.runs == pytest.approx(10, abs=1)


def test_steady_histories_seldom_seem_to_change():
    false = sum(bool(changes(normal(100, seed=seed))) for seed in range(300))
    assert wilson(false, 300)[1] < 0.03
    hits = [changes([*normal(40, seed=s), *normal(20, seed=1000 + s, center=-0.46)]) for s in range(100)]
    assert sum(len(each) == 1 and abs(each[0] - 40) <= 2 for each in hits) >= 95


def test_the_cusum_adds_up_what_exceeds_its_slack():
    assert accumulate(0.0, 1.5) == 1.5 - SLACK
    assert accumulate(0.5, 0.0) == 0.0
    assert creeps(Level(0, 1, 8, cusum=ALARM), SLACK + 0.01)
    assert not creeps(Level(0, 1, 8, cusum=ALARM), SLACK)


def test_one_bad_run_is_no_creep():
    assert not creeps(Level(0, 1, 8), 100.0)
    assert not creeps(Level(0, 1, 8, cusum=accumulate(0.0, 100.0)), 100.0)


def alarms_in_turn(values, first):
    """The indices from `first` on at which a check against all earlier runs says regressed, and by its z alone."""
    found = []
    for index in range(first, len(values)):
        base = level_of(values[:index])
        verdict = judge({"a": base}, {"a": (values[index], 0.0)})["a"]
        if verdict.verdict == "regressed":
            found.append((index, verdict.p < RATE))
    return found


def test_a_slow_creep_alarms_before_eight_runs_of_it_are_a_new_level():
    """A shift of two and a half deviations: no single run of it is significant at most times."""
    found = [alarms_in_turn([*normal(30, seed=s), *normal(8, seed=500 + s, center=-0.475)], 30) for s in range(60)]
    assert sum(bool(each) for each in found) >= 48
    assert any(by_itself is False for each in found for _, by_itself in each)


def test_a_steady_case_alone_is_seldom_blamed_check_after_check():
    """Of runs that do not tell their own error, which would be a floor: 0.9 % of 10,000 checks."""
    checks = [len(alarms_in_turn(normal(60, seed=s), 10)) for s in range(60)]
    assert sum(checks) / (60 * 50) < 0.015


def test_what_is_detectable_is_detected_with_that_power():
    for runs in (8, 30):
        base = Level(0.0, 0.01, runs)
        shift = math.log1p(detectable(base))
        deviation = 0.01 * math.sqrt(1 + 1.57 / runs)
        t = scipy.stats.t(runs - 1)
        assert t.sf((t.isf(RATE) * deviation - shift) / deviation) == pytest.approx(0.8)


def stored_run(profile, random, launches=3):
    """log ratios of 12 equal cases to the anchor, as a sweep of so many rounds would find them in a job of its own."""
    rounds = []
    job = Job(profile, random, slots=launches * (CASES + 1) * 306, separate=True)
    for _ in range(launches):
        medians = np.empty(CASES + 1)
        for index in random.permutation(CASES + 1):
            medians[index] = np.median(job.launch().first(100)[:100])
        rounds.append(medians[1:] - medians[0])
    return np.mean(rounds, axis=0), np.std(rounds, axis=0, ddof=1) / math.sqrt(launches)


@pytest.fixture(scope="module", params=list(PROFILES))
def pool(request):
    """The name of a profile and 240 runs of it: values and errors."""
    random = np.random.default_rng(5)
    runs = [stored_run(PROFILES[request.param], random) for _ in range(240)]
    return request.param, np.array([x for x, _ in runs]), np.array([e for _, e in runs])


def alarmed(pool, random, runs, shift):
    """Which of the 12 cases a check against so many stored runs calls regressed."""
    _, values, errors = pool
    picked = random.choice(len(values), runs + 1, replace=False)
    levels = {c: level(values[picked[:-1], c].tolist(), errors[picked[:-1], c].tolist()) for c in range(CASES)}
    present = {c: (values[picked[-1], c] + shift, errors[picked[-1], c]) for c in range(CASES)}
    return sum(each.verdict == "regressed" for each in judge(levels, present).values())


@pytest.mark.parametrize("runs", [8, 15, 30])
def test_false_alarms_are_rare_on_realistic_noise(pool, runs):
    random = np.random.default_rng(runs)
    alarms = sum(alarmed(pool, random, runs, 0.0) for _ in range(100))
    assert wilson(alarms, 100 * CASES)[1] < 0.01


def test_a_slow_down_that_is_large_beside_the_noise_is_found(pool):
    shift = math.log1p({"dedicated GPU": 0.10, "hosted CPU": 0.30}[pool[0]])
    random = np.random.default_rng(9)
    found = sum(alarmed(pool, random, 30, shift) for _ in range(40))
    assert wilson(found, 40 * CASES)[0] > 0.95
