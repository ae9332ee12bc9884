"""What a team asks of its gate: thresholds, absolute limits, what to make of open verdicts, waivers."""

import datetime
import json
import math

import numpy as np
import pytest
import tomli_w
from scipy import stats

from mixprof.data.errors import UsageError
from mixprof.reports.gate import limits, thresholds, times, waivers
from mixprof.reports.gate.outcome import Outcome, Policy, exit_code
from mixprof.reports.gate.policy import apply, refuse_unused_patterns
from mixprof.reports.gate.thresholds import Thresholds
from mixprof.reports.gate.times import Time
from mixprof.reports.gate.waivers import Waiver
from outcomes import NASTY, every_verdict, judged
from toy_repository import mixprof, with_topic

TODAY = datetime.date(2026, 6, 1)
LABELS = ["swin_t eager cpu float32 b1 224x224 k7", "swin_t:mixer=depthwise_conv eager cuda:0 float16 b1 224x224 k7"]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], (0.02, 0.02)),
        (["0.05"], (0.05, 0.05)),
        (["swin_t *=0.05"], (0.05, 0.02)),
        (["swin_t:mixer=depthwise_conv*=0.1", "0.03"], (0.03, 0.1)),
        (["swin_t*=0.05", "*cuda:0*=0.01"], (0.05, 0.01)),  # the last that fits
        (["*cuda:0*=0.01", "swin_t*=0.05"], (0.05, 0.05)),
        (["SWIN_T*=0.05"], (0.02, 0.02)),
    ],
)
def test_a_threshold_is_that_of_the_last_pattern_that_fits(texts, expected):
    found = thresholds.parse(texts)
    assert tuple(found.of(label) for label in LABELS) == expected


@pytest.mark.parametrize("text", ["fast", "0", "1", "-0.1", "nan", "swin_t*=", "swin_t*=2%", ""])
def test_a_threshold_that_is_none_is_refused(text):
    with pytest.raises(UsageError, match="expected a share"):
        thresholds.parse([text])


def test_two_thresholds_for_all_are_refused():
    with pytest.raises(UsageError, match="got 2 values"):
        thresholds.parse(["0.02", "0.03"])


def test_a_family_has_half_the_threshold_of_its_cases():
    found = Thresholds(0.04, [("b*", 0.08)])
    assert found.of_family(["a", "b"]) == pytest.approx(0.03)
    assert Thresholds().of_family(["a"]) == 0.01  # of MEASUREMENT


def test_a_pattern_that_fits_no_case_is_refused_and_shown_a_label():
    for policy in (
        Policy(thresholds=thresholds.parse(["swin_t=0.1"])),
        Policy(limits=limits.parse(["vit:latency<=1ms"])),
    ):
        with pytest.raises(UsageError, match=LABELS[0]):
            refuse_unused_patterns(policy, LABELS)
    refuse_unused_patterns(Policy(thresholds=thresholds.parse(["swin_t *=0.1"])), LABELS)


@pytest.mark.parametrize(
    ("text", "pattern", "metric", "most_ms"),
    [
        ("host_p99<=8ms", "*", "host_p99", 8.0),
        ("swin_t*:latency <= 1.5 ms", "swin_t*", "latency", 1.5),
        ("*cuda:0*:host_p50<=250us", "*cuda:0*", "host_p50", 0.25),
        ("swin_t:mixer=conv*:host_p95≤2s", "swin_t:mixer=conv*", "host_p95", 2000.0),
        ("latency<=7µs", "*", "latency", 0.007),
    ],
)
def test_limits_are_read(text, pattern, metric, most_ms):
    (found,) = limits.parse([text])
    assert (found.pattern, found.metric) == (pattern, metric)
    assert found.most_ms == pytest.approx(most_ms)


@pytest.mark.parametrize(
    "text",
    ["host_p99<8ms", "host_p98<=8ms", "host_p99<=8", "host_p99<=8h", "host_p99<=0ms", "latency<=1.2.3ms", "8ms", ""],
)
def test_a_limit_that_is_none_is_refused(text):
    with pytest.raises(UsageError, match=r"expected .PATTERN:.METRIC<=TIME"):
        limits.parse([text])


@pytest.mark.parametrize(
    ("time", "said", "words"),
    [
        (Time(7.0, 6.8, 7.2), limits.WITHIN, "within the limit of 8 ms"),
        (Time(9.0, 8.5, 9.5), limits.EXCEEDED, "host_p99 is 9 ms [8.5, 9.5], over the limit of 8 ms"),
        (Time(7.9, 7.0, 8.8), limits.UNKNOWN, "too near"),
        (Time(8.1, 7.0, 9.2), limits.UNKNOWN, "too near"),
        (Time(9.0), limits.UNKNOWN, "too few rounds"),
        (Time(9.0, 8.5, None), limits.EXCEEDED, "[8.5, ?], over"),
        (Time(7.0, 6.5, None), limits.UNKNOWN, "too near"),
        (Time(7.0, None, 7.5), limits.WITHIN, "[?, 7.5], within"),
        (Time(None, reason="it needs 1,000 samples, there were 300"), limits.UNKNOWN, "1,000 samples, there were 300"),
    ],
)
def test_a_limit_needs_the_whole_interval_on_one_side(time, said, words):
    (limit,) = limits.parse(["host_p99<=8ms"])
    found, reason = limits.judge(limit, {"host_p99": time})
    assert found == said
    assert words in reason


def test_the_latency_is_the_t_interval_over_rounds():
    rounds = np.random.default_rng(0).lognormal(1.0, 0.1, (6, 40))
    found = times.of_rounds(rounds.tolist(), True, "cpu")["latency"]
    logs = np.log(np.median(rounds, axis=1))
    expected = stats.t.interval(0.95, 5, logs.mean(), stats.sem(logs))
    assert found.ms == pytest.approx(math.exp(logs.mean()))
    assert (found.low_ms, found.high_ms) == pytest.approx(tuple(np.exp(expected)))


def test_percentiles_are_of_all_samples_and_their_intervals_of_rounds():
    # 400 nominal 95 % intervals of a lognormal in 16 rounds that differ by 5 %.
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        rounds = generator.lognormal(0.0, 0.3, (16, 100)) * generator.lognormal(0.0, 0.05, (16, 1))
        found = times.of_rounds(rounds.tolist(), True, "cpu")["host_p99"]
        assert found.ms == pytest.approx(np.percentile(rounds, 99))
        truth = math.exp(stats.norm.ppf(0.99) * math.hypot(0.3, 0.05))
        assert found.low_ms is not None
        covered += found.low_ms <= truth <= (math.inf if found.high_ms is None else found.high_ms)
    assert 0.93 <= covered / 400 <= 0.985


@pytest.mark.parametrize(
    ("rounds", "single", "device", "known"),
    [
        ([[1.0] * 500] * 2, True, "cpu", {"latency", "host_p50", "host_p95", "host_p99"}),
        ([[1.0] * 499] * 2, True, "cpu", {"latency", "host_p50", "host_p95"}),
        ([[1.0] * 500] * 2, False, "cpu", {"latency"}),
        ([[1.0] * 500] * 2, True, "cuda:0", {"latency"}),
        ([[], []], True, "cpu", set()),
    ],
)
def test_what_is_not_known_has_its_reason(rounds, single, device, known):
    found = times.of_rounds(rounds, single, device)
    assert set(found) == set(times.METRICS)
    assert {name for name, time in found.items() if time.ms is not None} == known
    assert all(time.reason for time in found.values() if time.ms is None)


@pytest.mark.parametrize(
    ("verdict", "time", "expected"),
    [
        ("same", Time(9.0, 8.5, 9.5), "regressed"),
        ("improved", Time(9.0, 8.5, 9.5), "regressed"),
        ("same", Time(7.0, 6.9, 7.1), "same"),
        ("improved", Time(None, reason="of a reason"), "inconclusive"),
        ("regressed", Time(None, reason="of a reason"), "regressed"),
        ("missing", Time(None, reason="of a reason"), "missing"),
        ("incomparable", Time(9.0, 8.5, 9.5), "incomparable"),
    ],
)
def test_a_limit_makes_a_verdict_worse_or_leaves_it(verdict, time, expected):
    outcome = Outcome("ab", "a", "b", [judged("x", verdict, times={"latency": time})])
    policy = Policy(limits=limits.parse(["latency<=8ms"]))
    (found,) = apply(outcome, policy, TODAY).cases
    assert found.verdict == expected
    assert (found.reason is None) == (expected in ("same", "missing", "incomparable"))


@pytest.mark.parametrize(
    ("verdicts", "policy", "expected"),
    [
        (["inconclusive"], Policy(), 3),
        (["inconclusive"], Policy("pass"), 0),
        (["inconclusive"], Policy("retry"), 3),
        (["incomparable"], Policy(), 4),
        (["incomparable"], Policy("fail", "pass"), 0),
        (["incomparable"], Policy("fail", "retry"), 4),
        (["incomparable", "regressed", "inconclusive"], Policy(), 1),
        (["incomparable", "inconclusive"], Policy(), 4),
        (["incomparable", "inconclusive"], Policy("fail", "pass"), 3),
        (["same", "improved"], Policy(), 0),
    ],
)
def test_exit_codes_follow_the_policy(verdicts, policy, expected):
    cases = [judged(f"case {number}", verdict) for number, verdict in enumerate(verdicts)]
    assert exit_code(Outcome("ab", "a", "b", cases), policy) == expected


def test_only_what_was_asked_for_is_tried_again():
    assert [Policy("retry", "fail").retries(each) for each in ("inconclusive", "incomparable", "same")] == [
        True,
        False,
        False,
    ]
    assert [Policy("fail", "retry").retries(each) for each in ("inconclusive", "incomparable", "same")] == [
        False,
        True,
        False,
    ]


def waive(case, until=TODAY, reason="see issue 12"):
    return Waiver(case, reason, until)


def test_a_waiver_lets_a_case_pass_through_its_last_day():
    outcome = Outcome("ab", "a", "b", [judged("x", "regressed"), judged("y", "missing")])
    policy = Policy(waivers=[waive("x"), waive("y")])
    settled = apply(outcome, policy, TODAY)
    assert [each.waived for each in settled.cases] == ["see issue 12"] * 2
    assert exit_code(settled, policy) == 0
    over = apply(outcome, policy, TODAY + datetime.timedelta(days=1))
    assert exit_code(over, policy) == 1
    assert list(over.notes) == [
        "the waiver of 'x' ran out on 2026-06-01 and does not count: see issue 12",
        "the waiver of 'y' ran out on 2026-06-01 and does not count: see issue 12",
    ]


def test_a_waiver_that_nobody_needs_is_said_and_none_makes_a_case_comparable():
    cases = [judged("x"), judged("y", "incomparable"), judged("open", "inconclusive")]
    policy = Policy(waivers=[waive("x"), waive("y"), waive("z"), waive("open")])
    settled = apply(Outcome("ab", "a", "b", cases), policy, TODAY)
    assert [each.waived is not None for each in settled.cases] == [False, False, True]
    assert exit_code(settled, policy) == 4
    assert list(settled.notes) == [
        "the waiver of 'x' is not needed any more, the verdict is same: remove it",
        "the waiver of 'z' names nothing that this job compared",
    ]


def test_families_and_the_grid_can_be_waived_by_name():
    policy = Policy(waivers=[waive("all cases"), waive("swin_t eager")])
    settled = apply(every_verdict(), policy, TODAY)
    assert settled.grid is not None
    assert settled.grid.waived == settled.families[0].waived == "see issue 12"


def test_waivers_are_the_same_text_whatever_their_order_and_are_read_back(tmp_path):
    every = [waive("b", reason='"quoted"\nand more \\'), waive(NASTY, datetime.date(2027, 1, 1)), waive("a = [1]")]
    text = waivers.as_toml(every)
    assert waivers.as_toml(every[::-1]) == text
    (tmp_path / "w.toml").write_text(text, encoding="utf-8")
    assert set(waivers.read(tmp_path / "w.toml")) == set(every)
    assert [each.case for each in waivers.read(tmp_path / "w.toml")] == sorted(each.case for each in every)


WAIVER = {"case": "x", "reason": "y", "until": TODAY}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[[waiver]\n", "cannot be read"),
        (b"\xff", "cannot be read"),
        (b"waiver = 3\n", "got waiver"),
        (b"[waivers]\n", "got waivers"),
        (tomli_w.dumps({"waiver": [WAIVER, WAIVER]}).encode(), "two waivers of 'x'"),
        (tomli_w.dumps({"waiver": [{**WAIVER, "until": "2026-12-31"}]}).encode(), "a date without quotes"),
        (tomli_w.dumps({"waiver": [{**WAIVER, "until": datetime.datetime(2026, 1, 1)}]}).encode(), "a date without"),
        (tomli_w.dumps({"waiver": [{**WAIVER, "reason": ""}]}).encode(), "a text that is not empty"),
        (tomli_w.dumps({"waiver": [{**WAIVER, "cases": "x"}]}).encode(), "expected case, reason, until"),
        (tomli_w.dumps({"waiver": [{"case": "x"}]}).encode(), "got case in waiver 1"),
        (b"[[waiver]]\n", "got nothing in waiver 1"),
        (b"waiver = [3]\n", "waiver 1"),
    ],
)
def test_a_waiver_file_that_is_none_is_refused(tmp_path, content, said):
    (tmp_path / "w.toml").write_bytes(content)
    with pytest.raises(UsageError, match=said):
        waivers.read(tmp_path / "w.toml")


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return with_topic(tmp_path_factory.mktemp("toy") / "repository").folder


AXES = ("--models", "net:mixer", "--resolutions", "7", "--channels", "32", "--exact-only")
LABEL = "net:mixer eager cpu float32 b1 7x7 c32"


@pytest.mark.slow
def test_accept_writes_a_file_that_ab_reads(toy, tmp_path):
    later = datetime.date.today() + datetime.timedelta(days=30)
    file = tmp_path / "waivers.toml"
    first = mixprof(toy, "accept", "gone", "--reason", "old", "--until", later, "--file", file)
    assert first.returncode == 0, first.stderr
    for reason in ("once", 'it is "worth" it'):
        done = mixprof(toy, "accept", LABEL, "--reason", reason, "--until", later, "--file", file)
        assert done.returncode == 0, done.stderr
    assert set(waivers.read(file)) == {Waiver("gone", "old", later), Waiver(LABEL, 'it is "worth" it', later)}
    ab = mixprof(toy, "ab", "one", "two", *AXES, "--waivers", file)
    assert ab.returncode == 0, ab.stderr
    assert "regressed (waived)" in ab.stdout
    assert "the waiver of 'gone' names nothing that this job compared" in ab.stdout
    (tmp_path / "mixprof-waivers.toml").write_text(file.read_text())
    assert mixprof(toy, "ab", "one", "two", *AXES).returncode == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("accept", "x", "--reason", "y", "--until", "soon"), "expected a date like 2026-12-31"),
        (("accept", "x", "--reason", "y", "--until", "2020-01-01"), "which is over"),
        (("accept", "x", "--reason", " ", "--until", "2999-01-01"), "got an empty reason"),
        (("accept", "", "--reason", "y", "--until", "2999-01-01"), "got an empty case"),
        (("accept", "x", "--until", "2999-01-01"), "--reason"),
        (("ab", "one", "two", *AXES, "--waivers", "none.toml"), "none.toml"),
        (("ab", "one", "two", *AXES, "--threshold", "2"), "expected a share"),
        (("ab", "one", "two", *AXES, "--threshold", "swin*=0.1"), LABEL),
        (("ab", "one", "two", *AXES, "--limit", "latency<=1ms"), "--exact-only"),
        (("ab", "one", "two", *AXES[:-1], "--limit", "fast"), "METRIC<=TIME"),
        (("ab", "one", "two", *AXES, "--on-inconclusive", "retry"), "--budget"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(toy, arguments, said):
    done = mixprof(toy, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr


def test_every_export_of_one_job_and_one_that_cannot_be_written(toy, tmp_path):
    names = ("junit", "markdown", "bencher", "benchmark-json")
    options = [part for name in names for part in (f"--{name}", tmp_path / name)]
    done = mixprof(toy, "ab", "one", "two", *AXES, *options, "--annotations", "--out", tmp_path / "job")
    assert done.returncode == 1, done.stderr
    assert all((tmp_path / name).stat().st_size for name in names)
    assert f"::error title={LABEL.replace(':', '%3A')}%3A regressed::" in done.stdout
    stored = json.loads((tmp_path / "job" / "ab.json").read_text())
    assert stored["exit_code"] == 1
    assert stored["cases"][0]["name"] == LABEL
    options[1] = tmp_path / "none" / "junit"
    (tmp_path / "bencher").unlink()
    failed = mixprof(toy, "ab", "one", "two", *AXES, *options, "--json", "--annotations")
    assert failed.returncode == 74
    assert json.loads(failed.stdout)["exit_code"] == 1  # the verdicts were printed, JSON alone
    *annotations, last = failed.stderr.splitlines()
    assert annotations[0].startswith("::error ")
    assert last == f"mixprof: {options[1]} could not be written or read: No such file or directory"
    assert (tmp_path / "bencher").exists()  # the others were


def test_rounds_of_unequal_length_weigh_by_their_samples():
    rounds = [[1.0] * 90 + [2.0] * 10, [1.0] * 290 + [2.0] * 10]
    found = times.of_rounds(rounds, True, "cpu")["host_p95"]
    assert found.ms == np.percentile(np.concatenate(rounds), 95)


@pytest.mark.slow
def test_a_limit_on_a_real_job(toy, tmp_path):
    axes = (
        "--models",
        "net:mixer",
        "--resolutions",
        "112",
        "--channels",
        "96",
        "--threads",
        "1",
        "--max-lost-cpu",
        "1",
    )
    settings = ("--budget", "20", "--limit", "latency<=1000s", "--limit", "host_p99<=1us", "--on-inconclusive", "pass")
    # The lock of gates lies in the folder for temporary files: a folder of its own waits for no other gate.
    done = mixprof(toy, "ab", "one", "unrelated", *axes, *settings, "--json", TMPDIR=str(tmp_path))
    (case,) = json.loads(done.stdout)["cases"]
    assert case["rounds"] or case["verdict"] == "inconclusive"
    assert case["times"]["latency"]["ms"] > 0
    assert case["times"]["host_p50"]["ms"] > 0
    assert case["times"]["host_p99"]["reason"].startswith("it needs 1,000 samples, there were ")
    assert "host_p99 is not known" in case["reason"]
