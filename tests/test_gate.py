"""reports.gate.verdicts against scipy, closed forms and simulated jobs; and when a job of `ab` goes on or ends."""

import math
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.stats

from mixprof.data.pairs import Failure, Measured, Paired
from mixprof.gate.grid import match, of_side
from mixprof.gate.looks import FORGIVEN, Budget, differences_of, look
from mixprof.gate.rounds import Entry
from mixprof.gate.sides import Side
from mixprof.plan import sources
from mixprof.plan.axes import Planned, Source
from mixprof.plan.settings import Axes
from mixprof.reports.gate.calibration import play
from mixprof.reports.gate.judge import Judge
from mixprof.reports.gate.outcome import Policy, exit_code
from mixprof.reports.gate.thresholds import Thresholds
from mixprof.reports.gate.verdicts import (
    LOOKS,
    MORE_LOOKS,
    PRIOR,
    RATE,
    judge,
    rounds_to_decide,
    smallest_detectable,
    together,
)
from synthetic_runs import case

CASES = 12


def exactly(mean, deviation, rounds):
    """So many values of exactly this mean and standard deviation."""
    values = np.random.default_rng(rounds).standard_normal(rounds)
    return (mean + deviation * (values - values.mean()) / values.std(ddof=1)).tolist()


def normal(random, deviations, rounds, shift=0.0):
    """A job's differences by case; the first case is shifted."""
    found = random.standard_normal((len(deviations), rounds)) * np.array(deviations)[:, None]
    found[0] += shift
    return dict(enumerate(found.tolist()))


@pytest.mark.parametrize(("mean", "deviation", "rounds"), [(0.03, 0.02, 5), (-0.01, 0.05, 8), (0.001, 0.004, 16)])
def test_one_case_alone_is_a_t_test(mean, deviation, rounds):
    values = exactly(mean, deviation, rounds)
    found = judge({"a": values})["a"]
    expected = scipy.stats.ttest_1samp(values, 0.0, alternative="greater")
    interval = scipy.stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx((math.expm1(interval.low), math.expm1(interval.high)))
    assert found.change == pytest.approx(math.expm1(mean))
    assert found.rounds == rounds


def test_a_variance_is_drawn_to_the_grids_and_never_below_its_own():
    rounds, deviations = 6, {"quiet": 0.001, "median": 0.01, "noisy": 0.05}
    found = judge({name: exactly(0.03, each, rounds) for name, each in deviations.items()})
    drawn = (PRIOR * 0.01**2 + (rounds - 1) * 0.001**2) / (PRIOR + rounds - 1)
    for name, variance in {"quiet": drawn, "median": 0.01**2, "noisy": 0.05**2}.items():
        assert found[name].p == pytest.approx(scipy.stats.t.sf(0.03 / math.sqrt(variance / rounds), rounds - 1))


@pytest.mark.parametrize(
    ("change", "threshold", "verdict"),
    [
        (0.05, 0.02, "regressed"),
        (0.025, 0.02, "regressed"),  # also below 3 %: regressed wins
        (0.015, 0.02, "same"),
        (0.0, 0.02, "same"),
        (-0.015, 0.02, "same"),
        (-0.05, 0.02, "improved"),
        (0.05, 0.1, "same"),
        (0.12, 0.1, "regressed"),
        (0.008, 0.005, "regressed"),
    ],
)
def test_what_is_known_exactly_is_judged_by_its_threshold(change, threshold, verdict):
    assert judge({"a": exactly(math.log1p(change), 1e-5, 5)}, threshold)["a"].verdict == verdict


def test_each_case_has_the_threshold_of_its_own():
    values = {name: exactly(math.log1p(0.05), 1e-5, 5) for name in "ab"}
    assert {key: each.verdict for key, each in judge(values, {"a": 0.02, "b": 0.1}).items()} == {
        "a": "regressed",
        "b": "same",
    }


def test_rounds_that_do_not_differ_at_all_are_decided():
    found = judge({"still": [0.0] * 5, "slower": [0.1] * 5})
    assert (found["still"].verdict, found["slower"].verdict) == ("same", "regressed")


@pytest.mark.parametrize("seed", range(5))
def test_sides_are_treated_alike(seed):
    job = normal(np.random.default_rng(seed), [0.01] * 4, 8, shift=0.05)
    mirrored = judge({key: [-each for each in values] for key, values in job.items()})
    names = {"regressed": "improved", "improved": "regressed"}
    for key, verdict in judge(job).items():
        if verdict.verdict in names:
            assert mirrored[key].verdict == names[verdict.verdict]
        assert math.log1p(mirrored[key].change) == pytest.approx(-math.log1p(verdict.change))


@pytest.mark.parametrize(
    ("change", "deviation", "threshold"),
    [(0.05, 0.03, 0.02), (0.0, 0.05, 0.02), (0.025, 0.02, 0.02), (0.04, 0.03, 0.05)],
)
def test_the_rounds_that_would_decide_do_and_one_fewer_do_not(change, deviation, threshold):
    values = exactly(math.log1p(change), deviation, 5)
    verdict = judge({"a": values}, threshold)["a"]
    assert verdict.open
    wanted = rounds_to_decide(verdict, deviation, threshold)
    assert wanted is not None
    for rounds, is_open in ((wanted - 1, True), (wanted, False)):
        assert judge({"a": exactly(math.log1p(change), deviation, rounds)}, threshold)["a"].open is is_open


def test_what_a_thousand_rounds_would_not_decide_is_said_to_be_so():
    assert rounds_to_decide(judge({"a": exactly(0.0, 2.0, 5)})["a"], 2.0) is None


@pytest.mark.parametrize(("deviation", "rounds"), [(0.03, 5), (0.03, 16), (0.1, 8)])
def test_the_smallest_detectable_change_is_found_about_four_times_in_five(deviation, rounds):
    shift = math.log1p(smallest_detectable(deviation, rounds))
    critical = scipy.stats.t.ppf(1 - RATE, rounds - 1)
    found = scipy.stats.nct.sf(critical, rounds - 1, shift * math.sqrt(rounds) / deviation)
    assert 0.7 < found < 0.9  # the formula adds quantiles; with few rounds the exact power, of a noncentral t, is less


def test_the_smallest_detectable_change_is_no_less_than_the_threshold():
    assert smallest_detectable(1e-4, 16) == 0.02


def test_a_family_is_the_mean_over_the_cases_that_have_a_round():
    assert together({"a": [1.0, 2.0, 3.0], "b": [3.0, 6.0]}) == [2.0, 4.0, 3.0]
    assert together({}) == []


def test_what_is_not_compared_is_said():
    both, impossible, only_base, only_head = (case(window=window) for window in (3, 4, 5, 7))
    base = {each: Planned(each, sources.ANCHOR) for each in (both, only_base)}
    base[impossible] = Planned(impossible, sources.ANCHOR, "an even kernel")
    head = {each: Planned(each, sources.ANCHOR) for each in (both, only_head, impossible)}
    grid = match(base, head)
    assert [entry.pair.case for entry in grid.entries] == [both]
    assert [missing.case for missing in grid.missing] == [only_base]
    assert [note.partition(" is ")[0] for note in grid.notes] == [impossible.label(), only_head.label()]


# What MEASUREMENT.md says of the rule, with one case of twelve five times as noisy as the others.
DEVIATIONS = [0.015] * (CASES - 1) + [0.075]


def test_of_jobs_of_the_same_code_fewer_than_one_in_a_hundred_blame_a_case():
    random = np.random.default_rng(0)
    jobs = [play(normal(random, DEVIATIONS, LOOKS[-1])) for _ in range(1500)]
    blamed = sum(any(each.verdict == "regressed" for each in job.values()) for job in jobs)
    assert blamed <= 0.01 * len(jobs)


def test_five_percent_are_found():
    random = np.random.default_rng(1)
    jobs = [play(normal(random, DEVIATIONS, LOOKS[-1], shift=math.log(1.05))) for _ in range(300)]
    assert sum(job[0].verdict == "regressed" for job in jobs) >= 0.98 * len(jobs)


class Replayed:
    """Rounds that were measured before, in the place of mixprof.gate.rounds.Rounds."""

    spent_s = 0.0

    def __init__(self, differences, failures=()):
        self.number = 0
        self.differences, self.failures = differences, dict(failures)  # key -> sides that fail, a round each

    def run(self, entries, canary, stop):
        for entry in entries:
            if sides := self.failures.get(entry.pair.case):
                entry.pair.failure = Failure(sides.pop(0), "crashed", "signal 11")
            else:
                entry.pair.differences.append(self.differences[entry.pair.case][self.number])
        self.number += 1


class ByName(Judge):
    """A judge of cases that are letters."""

    def _threshold(self, case):
        return 0.02


def played(differences, policy=Policy(), failures=(), budget_s=None):  # noqa: B008 - frozen
    """A job that has run: how many rounds, and its verdicts."""
    planned = Planned(case(), sources.ANCHOR)
    entries = [Entry.itself(planned, key) for key in differences]
    rounds, judge = Replayed(differences, failures), ByName(policy)
    look(entries, entries[0], rounds, judge, Budget(budget_s, time.monotonic()), lambda line: None)
    last = judge.verdicts(differences_of(entries))
    return rounds.number, {key.case: verdict.verdict for key, verdict in last.items()}


STEADY, OPEN = [0.001, -0.001] * (MORE_LOOKS[-1] // 2), [0.4, -0.4] * (MORE_LOOKS[-1] // 2)
QUIET, SAME = {"a": STEADY, "c": STEADY}, {"a": "same", "c": "same"}  # two of three: the grid's variance is theirs


def test_a_job_ends_when_all_is_decided_and_else_with_the_last_look():
    assert played(QUIET) == (LOOKS[0], SAME)
    assert played({**QUIET, "b": OPEN}) == (LOOKS[-1], {**SAME, "b": "inconclusive"})


def test_retry_goes_on_with_what_is_open():
    late = OPEN[:16] + [0.3 + 0.001 * (-1) ** number for number in range(48)]
    rounds, found = played({**QUIET, "b": late}, Policy("retry"))
    assert rounds in MORE_LOOKS
    assert found == {**SAME, "b": "regressed"}
    assert played({"b": OPEN}, Policy("retry")) == (MORE_LOOKS[-1], {"b": "inconclusive"})


def test_retry_blames_no_more_jobs_of_the_same_code():
    random = np.random.default_rng(2)
    jobs = [played(normal(random, DEVIATIONS, MORE_LOOKS[-1]), Policy("retry"))[1] for _ in range(600)]
    assert sum("regressed" in job.values() for job in jobs) <= 0.01 * len(jobs)


def test_a_case_that_failed_keeps_no_job_going():
    assert played({**QUIET, "b": OPEN}, failures={"b": ["head"]}) == (LOOKS[0], SAME)
    assert played({"b": OPEN}, failures={"b": ["base"]}) == (1, {})


def test_a_failure_of_base_is_forgotten_twice_where_the_policy_says_so():
    policy = Policy(on_incomparable="retry")
    assert played({"a": STEADY}, policy, failures={"a": ["base"] * FORGIVEN}) == (LOOKS[0], {"a": "same"})
    assert played({"a": STEADY}, policy, failures={"a": ["base"] * (FORGIVEN + 1)}) == (FORGIVEN + 1, {})
    assert played({"a": STEADY}, policy, failures={"a": ["head"]}) == (1, {})  # a failure of HEAD is a finding


def test_a_budget_that_is_spent_ends_a_job_after_its_first_round():
    assert played({"a": OPEN}, budget_s=1e-9)[0] == 1


HOT, COLD = case(), case(mode="cold")


def test_cases_that_differ_in_any_field_are_two():
    """HEAD unchanged hot and half as slow again cold: one verdict each, not one for both."""
    fields: dict[str, Any] = {"layout": "contiguous", "mode": "cold", "dtype": "bfloat16", "batch": 4, "channels": 32}
    cases = [case(), *(case(**{name: value}) for name, value in fields.items())]
    planned = {one: Planned(one, sources.ANCHOR) for one in cases}
    grid = match(planned, planned)
    assert [entry.pair.case for entry in grid.entries] == cases
    assert len({entry.pair.case.label() for entry in grid.entries}) == len(cases)
    slower = [math.log(1.5) + value for value in STEADY]
    assert played({HOT: STEADY, COLD: slower}) == (LOOKS[0], {HOT: "same", COLD: "regressed"})


def test_an_outcome_tells_hot_from_cold():
    pairs = [
        Paired(HOT, HOT, HOT, exact={"macs": (1, 2)}, differences=STEADY[:5]),
        Paired(COLD, COLD, COLD, differences=[math.log(1.5) + value for value in STEADY[:5]]),
    ]
    outcome = Judge().conclude(Measured("a", "b", pairs))
    assert {judged.case: judged.verdict for judged in outcome.cases} == {HOT: "same", COLD: "regressed"}
    assert [judged.exact for judged in outcome.cases] == [{"macs": (1, 2)}, {}]
    assert outcome.cases[1].name == f"{outcome.cases[0].name} cold"


def test_a_slower_host_of_a_device_that_is_as_fast_is_a_regression_of_its_own():
    slower = [math.log(1.2) + value for value in STEADY[:5]]
    pairs = [
        Paired(HOT, HOT, HOT, differences=STEADY[:5], host_differences=slower),
        Paired(COLD, COLD, COLD, differences=STEADY[:5], host_differences=STEADY[:5]),
    ]
    outcome = Judge().conclude(Measured("BASE", "HEAD", pairs))
    assert {judged.name: judged.verdict for judged in outcome.cases} == {
        HOT.label(): "same",
        f"{HOT.label()} host": "regressed",
        COLD.label(): "same",
        f"{COLD.label()} host": "same",
    }
    assert exit_code(outcome, Policy()) == 1


def test_the_slow_down_that_would_have_been_found_is_no_less_than_the_policys_threshold():
    pairs = [Paired(HOT, HOT, HOT, differences=STEADY[:5])]
    outcome = Judge(Policy(thresholds=Thresholds(0.9))).conclude(Measured("base", "head", pairs))
    assert outcome.detectable == 0.9
    assert Judge().conclude(Measured("base", "head", pairs)).detectable == 0.02


def test_fewer_products_beside_operators_that_nobody_counts_are_no_improvement():
    fewer = {"macs": (9, 1)}
    pairs = [
        Paired(HOT, HOT, HOT, exact=fewer, new_uncounted=("mine.kernel",)),
        Paired(COLD, COLD, COLD, exact=fewer),
    ]
    outcome = Judge().conclude(Measured("base", "head", pairs, timed=False))
    assert [judged.verdict for judged in outcome.cases] == ["inconclusive", "improved"]
    assert "not counted: mine.kernel" in str(outcome.cases[0].reason)
    assert exit_code(outcome, Policy()) == 3


@pytest.mark.parametrize(
    ("overrides", "axes", "words"),
    [
        ({"lowering": "onnxruntime"}, {"steps": ("train",)}, "takes no gradient"),
        ({"dtype": "amp_bfloat16"}, {}, "is of training"),
        ({"dtype": "int8"}, {}, "runs no int8: use --lowerings"),
        ({"step": "train"}, {"lowerings": ("aot",)}, "takes no gradient"),
        ({"lowering": "openvino", "device": "cuda:0"}, {}, "got cuda:0, expected cpu: use --devices cpu"),
    ],
)
def test_a_side_that_its_own_settings_make_impossible_is_missing(tmp_path, overrides, axes, words):
    source = Source("zoo:net", {}, (), "network")
    asked: Any = SimpleNamespace(
        machine=lambda: SimpleNamespace(devices=["cpu"]),
        describe=lambda name: source,
        server=SimpleNamespace(imports=set()),
    )
    sides = (Side(".", tmp_path, "python"), Side(".", tmp_path, "python", overrides=overrides))
    base, head = (of_side([Axes(models=("zoo:net",), **axes)], side, asked) for side in sides)
    grid = match(base, head)
    assert not grid.entries
    assert words in grid.missing[0].reason


def test_a_side_that_fell_back_to_another_layout_is_said_to():
    why = {"layout": "contiguous", "layout_reason": "its outputs are wrong in channels_last"}
    pairs = [Paired(HOT, HOT, HOT, differences=STEADY[:5], proofs={"base": {}, "head": why})]
    (note,) = Judge().conclude(Measured("a", "b", pairs)).notes
    assert note.startswith(HOT.label())
    assert "HEAD ran in contiguous, for want of another: its outputs are wrong in channels_last" in note
