"""reports.gate.calibration against scipy and simulated truth; data.calibrations as files that expire."""

import json
import math
import time
from typing import Any

import numpy as np
import pytest
import scipy.stats

from mixprof.data import calibrations
from mixprof.data.testbed import testbed_key as key_of
from mixprof.reports.gate.calibration import false_alarms, injected, play, pooled, power, summary
from mixprof.reports.gate.verdicts import LOOKS

TESTBED = {"cpu": "A", "threads": 2, "gpus": ["B sm_90"], "cuda": "12.6"}


def pools(spread, pairs=20, cases=2, shift=0.0, seed=0):
    random = np.random.default_rng(seed)
    return {f"case {k}": (shift + spread * random.standard_normal(pairs)).tolist() for k in range(cases)}


def test_a_case_that_is_decided_stays_so():
    quick = [0.1, 0.1001, 0.0999, 0.1, 0.1]
    found = play({"a": quick + [-0.5] * (LOOKS[-1] - 5), "b": np.random.default_rng(0).normal(0.03, 0.05, 16).tolist()})
    assert (found["a"].verdict, found["a"].rounds) == ("regressed", 5)
    assert found["b"].rounds > 5


def test_quiet_machines_raise_no_alarm_and_find_five_percent():
    random = np.random.default_rng(1)
    quiet = pools(0.015)
    assert false_alarms(quiet, random, 200).high < 0.02
    assert power(pools(0.015, shift=math.log(1.05), seed=2), random, 200).low > 0.9


def test_on_a_noisy_machine_the_power_is_less_and_the_alarms_no_more():
    random = np.random.default_rng(1)
    assert false_alarms(pools(0.08), random, 200).high < 0.02
    assert power(pools(0.08, shift=math.log(1.05), seed=2), random, 200).high < 0.6


def test_a_pool_that_leans_to_one_side_raises_no_alarm_since_sides_are_drawn():
    leaning = {"a": [0.03 + 0.001 * k for k in range(20)]}
    assert false_alarms(leaning, np.random.default_rng(0), 200).share < 0.02


def test_the_summary_has_the_closed_form():
    found = summary(pools(0.03), np.random.default_rng(0), jobs=20)
    each = [math.sqrt(np.mean(np.square(pool))) for pool in pools(0.03).values()]
    s_d = np.median(each)
    t = scipy.stats.t(LOOKS[-1] - 1)
    expected = math.expm1((t.ppf(1 - 0.0025) + t.ppf(0.8)) * s_d / math.sqrt(LOOKS[-1]))
    assert found["deviation"] == pytest.approx(s_d)
    assert max(found["detectable_by_case"].values()) == pytest.approx(
        math.expm1(math.log1p(expected) * max(each) / s_d)
    )
    assert found["detectable"] == pytest.approx(expected)
    assert (found["pairs"], found["cases"], found["power"]) == (40, 2, None)


def test_injected_work_is_reported_as_it_was_measured():
    slowed = pools(0.001, shift=math.log(1.05))
    found = injected(slowed, 0.05, np.random.default_rng(0), jobs=20)
    assert found["measured"] == pytest.approx(0.05, abs=0.002)
    assert (found["injected"], found["share"]) == (0.05, 1.0)


def test_canaries_of_the_same_testbed_are_pooled():
    jobs: list[dict[str, Any]] = [
        {"testbed_key": "a", "canary_differences": [0.01, -0.02]},
        {"testbed_key": "b", "canary_differences": [0.5]},
        {"testbed_key": "a"},
    ]
    assert pooled(jobs, "a") == [0.01, -0.02]


@pytest.fixture
def kept(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXPROF_CACHE", str(tmp_path / "cache"))
    found = summary(pools(0.03), np.random.default_rng(0), jobs=20)
    calibrations.write(TESTBED, {**found, "power": injected(pools(0.01), 0.05, np.random.default_rng(0), jobs=20)})
    return found


def test_a_calibration_is_quoted_for_its_machine_for_seven_days(kept):
    words = calibrations.quoted(TESTBED)
    assert words is not None
    assert "40 A/A pairs" in words
    assert f"{kept['detectable']:.1%}" in words
    assert "an injected 5%" in words
    day = 24 * 3600
    assert calibrations.quoted(TESTBED, time.time() + 6.9 * day) is not None
    assert calibrations.quoted(TESTBED, time.time() + 7.1 * day) is None
    assert calibrations.quoted({**TESTBED, "threads": 3}) is None
    assert calibrations.in_words({**TESTBED, "threads": 3}) == "not calibrated: mixprof calibrate"


def test_software_is_no_part_of_a_testbed_key(kept):
    assert calibrations.quoted({**TESTBED, "cuda": "13.0"}) is not None
    assert key_of(TESTBED) != key_of({**TESTBED, "gpus": ["B sm_100"]})


def test_a_damaged_calibration_is_none(kept):
    whole = json.loads(calibrations.path_of(TESTBED).read_text())
    for damaged in ('{"schema": 1, "made_s"', json.dumps({**whole, "false_alarms": None}), "[]"):
        calibrations.path_of(TESTBED).write_text(damaged)
        assert calibrations.quoted(TESTBED) is None
