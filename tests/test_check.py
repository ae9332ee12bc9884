"""`mixprof check` and `mixprof baseline` on run folders with known numbers, through the command line's own main."""

import json
import math
import shlex
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest

from mixprof.cli import main
from mixprof.cli.command import read_sweep
from mixprof.data.json import digest
from mixprof.data.launch import Samples
from mixprof.data.manifest import Environment, Manifest, Sweep
from mixprof.data.pairs import HOST, Timed
from mixprof.data.record import Record
from mixprof.reports.gate import baseline
from mixprof.reports.gate.check import axes_of
from mixprof.reports.gate.stored import Stored, of_run
from synthetic_runs import case, launch, ok, write_run

CPU = {"cpu": "A cpu", "threads": 2, "allocator": "pinned", "quota": None, "libc": "glibc 2.36"}
VERSIONS = {"python": "3.11.2", "torch": "2.13.0", "onnxruntime": "1.20.0"}
ANCHOR = case("anchor_v1", channels=None, window=None)
CONV, ATTENTION = case(), case("window_attention")
START = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
EXACT: Any = {"params": 1000, "macs": 5_000_000, "memory": {"predicted_peak_bytes": 4096}}


def manifest(day=0, testbed=CPU, versions=VERSIONS, informing=None):
    created = (START + timedelta(days=day)).strftime("%Y-%m-%dT%H:%M:%S%z")
    environment = Environment(testbed, informing or {"kernel": "6.1"})
    return Manifest(Sweep(), {}, environment, versions, created=created)


class Fleet:
    """Writes runs: every case takes so many times as long as the anchor, which differs from run to run."""

    def __init__(self, folder):
        self.folder, self.random, self.number = folder, np.random.default_rng(0), 0

    def run(self, slower=1.0, day=0, records=None, **environment):
        self.number += 1
        anchor = 2.0 * float(np.exp(self.random.normal(0, 0.3)))  # never compared as it is
        noise = np.exp(self.random.normal(0, 0.004, 3))
        pair = [
            ok(CONV, (anchor * 0.5 * slower * noise).tolist(), **EXACT),
            ok(ATTENTION, (anchor * 0.9 * noise[::-1]).tolist(), **EXACT),
        ]
        found = [ok(ANCHOR, [anchor] * 3), *(pair if records is None else records)]
        return write_run(self.folder / f"run{self.number}", found, manifest(day, **environment))

    def history(self, runs, name="history", **environment):
        for day in range(runs):
            assert (
                check(self.run(day=day, **environment), self.folder / name, "--add", "--on-inconclusive", "pass") == 0
            )
        return self.folder / name


@pytest.fixture
def fleet(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXPROF_CACHE", str(tmp_path / "cache"))
    return Fleet(tmp_path)


def check(run, against, *options):
    return main.main(["check", str(run), "--against", str(against), *options])


def outcome(capsys, run, against, *options):
    capsys.readouterr()
    code = check(run, against, "--json", *options)
    found = json.loads(capsys.readouterr().out)
    assert found["exit_code"] == code
    return found


def verdicts(found):
    return {each["case"]["model"]: each["verdict"] for each in found["cases"]}


def test_a_run_is_kept_as_ratios_to_its_anchor(fleet):
    found = of_run(fleet.run())
    kept = found.cases[Timed(CONV)]
    assert kept.log_ratio == pytest.approx(math.log(0.5), abs=0.01)
    assert kept.exact == {"params": 1000, "macs": 5_000_000, "predicted_peak_bytes": 4096}
    assert set(found.cases) == {Timed(CONV), Timed(ATTENTION)}
    assert found.versions["libc"] == "glibc 2.36"
    assert Stored.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_a_first_run_begins_a_history_and_few_runs_judge_no_time(fleet, capsys):
    history = fleet.history(7)
    assert len(list(history.iterdir())) == 7
    found = outcome(capsys, fleet.run(slower=1.5, day=8), history)
    assert verdicts(found) == {"depthwise_conv": "inconclusive", "window_attention": "inconclusive"}
    assert found["exit_code"] == 3
    assert "7 of the 8 stored runs that a verdict on time takes" in found["cases"][0]["reason"]
    assert len(list(history.iterdir())) == 7  # added only when asked


def test_from_eight_runs_a_slow_down_is_an_unconfirmed_alarm_with_the_command_to_confirm_it(fleet, capsys):
    history = fleet.history(8)
    found = outcome(capsys, fleet.run(slower=1.1, day=9), history)
    assert verdicts(found) == {"depthwise_conv": "regressed", "window_attention": "same"}
    assert found["exit_code"] == 1
    assert found["cases"][0]["change"] == pytest.approx(0.1, abs=0.02)
    assert found["cases"][0]["confirmed"] is False
    (command,) = (note for note in found["notes"] if "mixprof ab" in note)
    words = shlex.split(command.partition("mixprof ")[2])
    arguments = main.parser().parse_args(words)
    groups = read_sweep(arguments).groups
    assert (arguments.base, arguments.head, groups[0].models) == ("merge-base", "HEAD", ("depthwise_conv",))
    assert verdicts(outcome(capsys, fleet.run(slower=0.9, day=9), history))["depthwise_conv"] == "improved"
    assert set(verdicts(outcome(capsys, fleet.run(day=9), history)).values()) == {"same"}
    assert check(fleet.run(slower=1.1, day=9), history) == 1
    assert "regressed (unconfirmed)" in capsys.readouterr().out


def test_a_run_that_is_in_the_history_is_not_compared_with_itself(fleet, capsys):
    history, slow = fleet.history(8), fleet.run(slower=1.2, day=9)
    check(slow, history, "--add")
    assert "added as" in capsys.readouterr().err
    check(slow, history, "--add")
    assert "already there" in capsys.readouterr().err
    assert outcome(capsys, slow, history)["cases"][0]["rounds"] == 8


def test_a_level_that_changed_is_judged_by_the_runs_since(fleet, capsys):
    history = fleet.history(10)
    for day in range(10, 20):
        check(fleet.run(slower=1.2, day=day), history, "--add")
    found = outcome(capsys, fleet.run(slower=1.2, day=30), history)
    assert verdicts(found)["depthwise_conv"] == "same"
    assert any("changed with the run of 2026-01-11" in note and "by +" in note for note in found["notes"])
    assert verdicts(outcome(capsys, fleet.run(slower=1.3, day=30), history))["depthwise_conv"] == "regressed"


def test_a_mixed_fleet_keeps_one_history_a_testbed_key(fleet, capsys):
    other = {**CPU, "cpu": "B cpu"}
    history = fleet.history(8)
    assert outcome(capsys, fleet.run(day=9, testbed=other), history)["exit_code"] == 4
    assert check(fleet.run(day=9, testbed=other), history, "--add") == 4
    found = outcome(capsys, fleet.run(day=10, slower=1.3, testbed=other), history)
    assert verdicts(found)["depthwise_conv"] == "inconclusive"  # one run of its own
    assert found["cases"][0]["rounds"] == 1
    assert outcome(capsys, fleet.run(day=10), history)["cases"][0]["rounds"] == 8


def test_another_machine_is_incomparable_and_both_values_are_printed(fleet, capsys):
    found = outcome(capsys, fleet.run(testbed={**CPU, "cpu": "B cpu"}), fleet.run())
    assert set(verdicts(found).values()) == {"incomparable"}
    assert "cpu A cpu there, B cpu here" in found["cases"][0]["reason"]
    assert outcome(capsys, fleet.run(testbed={**CPU, "threads": 4}), fleet.run(), "--on-incomparable", "pass")[
        "exit_code"
    ] == 0  # fmt: skip


def test_software_may_be_declared_to_be_under_test(fleet, capsys):
    base, head = fleet.run(), fleet.run(versions={**VERSIONS, "torch": "2.14.0", "onnxruntime": "1.21.0"})
    found = outcome(capsys, head, base, "--under-test", "torch")
    assert set(verdicts(found).values()) == {"incomparable"}
    assert "onnxruntime 1.20.0 there, 1.21.0 here" in found["cases"][0]["reason"]
    assert "torch" not in found["cases"][0]["reason"]
    found = outcome(capsys, head, base, "--under-test", "torch,onnxruntime")
    assert set(verdicts(found).values()) == {"inconclusive"}
    assert any("under test: onnxruntime 1.20.0 there, 1.21.0 here; torch" in note for note in found["notes"])


def test_what_only_informs_and_what_a_sensor_cannot_tell_is_said(fleet, capsys):
    gpu = {**CPU, "gpu_settings": [{"ecc": True, "mig": "unknown"}]}
    base = fleet.run(testbed=gpu)
    head = fleet.run(
        testbed={**gpu, "gpu_settings": [{"ecc": "unknown", "mig": "unknown"}]}, informing={"kernel": "6.9"}
    )
    found = outcome(capsys, head, base)
    assert set(verdicts(found).values()) == {"inconclusive"}
    (unknown,) = (note for note in found["notes"] if note.startswith("unknown"))
    assert "gpu_settings[0].ecc True there, unknown here" in unknown
    assert "gpu_settings[0].mig on both sides" in unknown
    assert "also: kernel 6.1 there, 6.9 here" in found["notes"]


def test_runs_of_other_versions_in_a_history_are_left_out(fleet, capsys):
    history = fleet.history(8)
    newer = {**VERSIONS, "torch": "2.14.0"}
    head = fleet.run(day=9, versions=newer)
    assert outcome(capsys, head, history)["exit_code"] == 4
    assert outcome(capsys, head, history, "--under-test", "torch")["cases"][0]["rounds"] == 8
    check(fleet.run(day=9, versions=newer), history, "--add")
    found = outcome(capsys, fleet.run(day=10, versions=newer), history)
    assert found["cases"][0]["rounds"] == 1
    assert "8 stored runs of other versions left out" in found["notes"]


@pytest.mark.parametrize(
    ("name", "value"), [("params", 1001), ("macs", 5_000_001), ("memory", {"predicted_peak_bytes": 8192})]
)
def test_exact_metrics_gate_with_one_stored_run(fleet, capsys, name, value):
    worse = [ok(CONV, [1.0] * 3, **{**EXACT, name: value}), ok(ATTENTION, [1.0] * 3, **EXACT)]
    found = outcome(capsys, fleet.run(records=worse), fleet.run())
    assert verdicts(found) == {"depthwise_conv": "regressed", "window_attention": "inconclusive"}
    assert found["exit_code"] == 1
    assert "->" in found["cases"][0]["reason"]
    better = outcome(capsys, fleet.run(), fleet.run(records=worse), "--exact-only")
    assert verdicts(better) == {"depthwise_conv": "improved", "window_attention": "same"}
    assert better["exit_code"] == 0


@pytest.mark.parametrize("name", ["graph_breaks", "recompiles", "kernels"])
def test_proofs_of_a_lowering_gate(fleet, capsys, name):
    base, head = ([ok(CONV, [1.0] * 3, proof={name: count})] for count in (0, 2))
    assert outcome(capsys, fleet.run(records=head), fleet.run(records=base))["cases"][0]["exact"] == {name: [0, 2]}
    assert check(fleet.run(records=head), fleet.run(records=base)) == 1


def test_what_was_ok_and_is_not_is_missing_with_its_status_and_reason(fleet, capsys):
    gone = [Record(ATTENTION, "oom", "tried to allocate 9 GiB")]
    found = outcome(capsys, fleet.run(records=gone), fleet.run())
    assert verdicts(found) == {"depthwise_conv": "missing", "window_attention": "missing"}
    assert [each["reason"] for each in found["cases"]] == ["the run has no such case", "oom: tried to allocate 9 GiB"]
    assert found["exit_code"] == 1


@pytest.mark.parametrize("status", ["crashed", "unstable"])
def test_a_case_that_broke_is_still_expected_after_its_run_was_stored(fleet, capsys, status):
    broken = [Record(CONV, status, "broke"), ok(ATTENTION, [1.0] * 3, **EXACT)]
    history = fleet.history(1)
    check(fleet.run(day=1, records=broken), history, "--add")
    found = outcome(capsys, fleet.run(day=2, records=broken), history, "--on-inconclusive", "pass")
    assert verdicts(found)["depthwise_conv"] == ("missing" if status == "crashed" else "inconclusive")
    assert found["exit_code"] == (1 if status == "crashed" else 0)
    # Whoever takes it out of the sweep is told once.
    check(fleet.run(day=3, records=broken[1:]), history, "--add")
    assert check(fleet.run(day=4, records=broken[1:]), history, "--on-inconclusive", "pass") == 0


@pytest.mark.parametrize("lost", [{"macs": None}, {"macs": None, "params": None}])
def test_counts_that_were_lost_are_not_the_same(fleet, capsys, lost):
    base, other = fleet.run(), ok(ATTENTION, [1.0] * 3, **EXACT)
    head = fleet.run(records=[ok(CONV, [1.0] * 3, **{**EXACT, **lost}), other])
    found = outcome(capsys, head, base, "--exact-only")
    assert verdicts(found) == {"depthwise_conv": "inconclusive", "window_attention": "same"}
    assert found["exit_code"] == 3
    uncounted = fleet.run(records=[ok(CONV, [1.0] * 3), other])
    assert "no count of it" in outcome(capsys, uncounted, uncounted, "--exact-only")["cases"][0]["reason"]


def test_fewer_products_beside_operators_that_nobody_counts_are_no_improvement(fleet, capsys):
    base, other = fleet.run(), ok(ATTENTION, [1.0] * 3, **EXACT)
    head = ok(CONV, [1.0] * 3, **{**EXACT, "macs": 10}, uncounted_ops=("mine.kernel",))
    found = outcome(capsys, fleet.run(records=[head, other]), base, "--exact-only")
    assert verdicts(found)["depthwise_conv"] == "inconclusive"
    assert "not counted: mine.kernel" in found["cases"][0]["reason"]
    less = fleet.run(records=[replace(head, uncounted_ops=()), other])
    assert verdicts(outcome(capsys, less, base, "--exact-only"))["depthwise_conv"] == "improved"


def test_the_peak_of_a_race_is_no_fact_of_the_code(fleet):
    choice = {"part": "Conv", "shape": [1], "usual": "matmul", "ms": {}, "chosen": "own"}
    raced = of_run(fleet.run(records=[ok(CONV, [1.0] * 3, **EXACT, proof={"choices": [choice]})]))
    assert "predicted_peak_bytes" not in raced.cases[Timed(CONV)].exact
    choice["chosen"] = "matmul"
    usual = of_run(fleet.run(records=[ok(CONV, [1.0] * 3, **EXACT, proof={"choices": [choice]})]))
    assert usual.cases[Timed(CONV)].exact["predicted_peak_bytes"] == 4096


def test_a_machine_that_was_disturbed_blames_nobody(fleet, capsys):
    shaky = [Record(CONV, "unstable", "lost 40% of its CPU time"), ok(ATTENTION, [1.0] * 3, **EXACT)]
    found = outcome(capsys, fleet.run(records=shaky), fleet.history(8))
    assert verdicts(found)["depthwise_conv"] == "inconclusive"
    assert "lost 40%" in found["cases"][0]["reason"]


def test_what_was_not_ok_or_not_there_is_new_and_said(fleet, capsys):
    found = outcome(
        capsys, fleet.run(), fleet.run(records=[ok(CONV, [1.0] * 3, **EXACT), Record(ATTENTION, "oom", "x")])
    )
    assert verdicts(found) == {"depthwise_conv": "inconclusive"}
    assert any("new, compared with nothing: window_attention" in note for note in found["notes"])


def test_without_an_anchor_a_time_is_incomparable(fleet, capsys):
    history = fleet.history(8)
    bare = write_run(fleet.folder / "bare", [ok(CONV, [1.0] * 3), ok(ATTENTION, [1.0] * 3)], manifest(9))
    found = outcome(capsys, bare, history)
    assert set(verdicts(found).values()) == {"incomparable"}
    assert "anchor_v1 eager cpu float32" in found["cases"][0]["reason"]


def test_the_command_names_every_axis_of_its_cases():
    cases = [case("net.py:a b", batch=4, resolution=(800, 1333)), case(lowering="compile")]
    words = shlex.split(axes_of(cases))
    found = dict(zip(words[::2], words[1::2], strict=True))
    assert found["--models"] == "net.py:a b,depthwise_conv"
    assert found["--resolutions"] == "800x1333,56x56"
    assert found["--lowerings"] == "eager,compile"


def test_one_of_the_bad_inputs_is_one_line_each(fleet, capsys):
    run, other = fleet.run(), fleet.run(records=[ok(case("conv"), [1.0] * 3)])
    empty = fleet.folder / "empty"
    empty.mkdir()
    (bad := fleet.folder / "bad").mkdir()
    (bad / f"{of_run(run).key}-20260101T120000Z-{'0' * 16}.json").write_text("{}")
    for against, options, said in (
        (empty, (), "which is empty or not there"),
        (fleet.folder / "nowhere", (), "which is empty or not there"),
        (other, (), "which are of conv"),
        (bad, (), "not the one that its name stands for"),
        (run, ("--under-test", "torhc"), "expected some of"),
        (run, ("--add",), "which is no history"),
        (run, ("--threshold", "2"), "a share like 0.02"),
        ("nosuch://x", (), "nosuch"),
    ):
        assert check(run, against, *options) == 2, against
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert check(fleet.folder / "nowhere", run) == 2


@pytest.mark.slow
def test_a_real_run_is_the_same_as_itself_and_as_its_baseline(fleet, capsys):
    run, file = fleet.folder / "real", fleet.folder / "real.txt"
    axes = ("--models", "depthwise_conv", "--resolutions", "7", "--channels", "32")
    settings = ("--quick", "--threads", "1", "--max-lost-cpu", "1", "--formulations", "usual")
    assert main.main(["sweep", *axes, *settings, "--out", str(run)]) == 0
    write_baseline(fleet, run, name="real.txt")
    for against in (run, file):
        assert check(run, against, "--exact-only") == 0
        assert check(run, against, "--on-inconclusive", "pass") == 0
    (kept,) = of_run(run).cases.values()
    assert set(kept.exact) >= {"params", "macs", "predicted_peak_bytes"}
    assert kept.log_ratio is not None


# ------------------------------------------------------------------------------------------------ text baselines


def write_baseline(fleet, *runs, name="baseline.txt"):
    assert main.main(["baseline", *map(str, runs), "--out", str(fleet.folder / name)]) == 0
    return fleet.folder / name


def test_a_run_without_a_case_that_is_ok_is_no_baseline(fleet, capsys):
    shaky = fleet.run(records=[Record(CONV, "unstable", "lost 40% of its CPU time")])
    assert main.main(["baseline", str(shaky), "--out", str(fleet.folder / "none.txt")]) == 2
    assert "unstable: lost 40% of its CPU time" in capsys.readouterr().err
    assert not (fleet.folder / "none.txt").exists()


def test_a_text_baseline_judges_as_its_run_does(fleet, capsys):
    base, head = fleet.run(), fleet.run(day=1, records=[ok(CONV, [1.0] * 3, **{**EXACT, "macs": 6_000_000})])
    file = write_baseline(fleet, base)
    assert len(file.read_text().splitlines()) < 20
    from_run, from_file = outcome(capsys, head, base), outcome(capsys, head, file)
    assert verdicts(from_file) == verdicts(from_run) == {"depthwise_conv": "regressed", "window_attention": "missing"}
    again = outcome(capsys, fleet.run(slower=1.1), file)
    assert again["cases"][0]["change"] == pytest.approx(
        outcome(capsys, fleet.run(slower=1.1), base)["cases"][0]["change"], abs=0.02
    )


def test_a_baseline_of_eight_runs_judges_times(fleet, capsys):
    file = write_baseline(fleet, *(fleet.run(day=day) for day in range(8)))
    assert verdicts(outcome(capsys, fleet.run(slower=1.1, day=9), file)) == {
        "depthwise_conv": "regressed", "window_attention": "same",
    }  # fmt: skip


def test_writing_a_baseline_again_changes_only_what_changed(fleet, capsys):
    file = write_baseline(fleet, fleet.run())
    before = file.read_text().splitlines()
    write_baseline(fleet, fleet.run(day=1))
    after = file.read_text().splitlines()
    assert [b.split()[0] for b, a in zip(before, after, strict=True) if a != b] == ["created"]
    assert "0 changed" in capsys.readouterr().out
    write_baseline(fleet, fleet.run(day=2, slower=1.2))
    changed = [a for b, a in zip(after, file.read_text().splitlines(), strict=True) if a != b]
    assert [line.split()[:2] for line in changed[1:]] == [["case", "model=depthwise_conv"]]
    write_baseline(fleet, fleet.run(day=2, slower=1.2, versions={"torch": "2.14.0"}))
    assert "2 changed" in capsys.readouterr().out


def test_a_baseline_holds_any_name_and_its_lines_are_sorted(fleet):
    names = ["my.net:a b=1%", "net.onnx", "µ:mixer=conv"]
    file = write_baseline(fleet, fleet.run(records=[ok(case(name), [1.0] * 3) for name in names]))
    lines = [line for line in file.read_text().splitlines() if line.startswith("case ")]
    assert lines == sorted(lines)
    from mixprof.reports.gate.baseline import read

    assert {key.case.model for key in read(file).newest.cases} == set(names)


@pytest.mark.parametrize(
    ("change", "line", "said"),
    [
        (lambda lines: [lines[0], lines[1].replace("1", "2", 1), *lines[2:]], 2, "edited"),
        (lambda lines: ["# something else", *lines[1:]], 1, "another first line"),
        (
            lambda lines: [*lines[:-2], lines[-2].replace("launches=3", "launches=4"), lines[-1]],
            -2,
            "torn or was edited",
        ),
        (lambda lines: [*lines[:-2], lines[-2][:40]], -1, "torn or was edited"),
        (lambda lines: [*lines[:-2], lines[-1]], -1, "lines were lost or added"),
        (lambda lines: lines[:-1], 0, "no line 'end'"),
        (lambda lines: [*lines[:-1], lines[-2], lines[-1]], -2, "a second time"),
        (lambda lines: [*lines[:3], "<<<<<<< HEAD", *lines[3:]], 4, "torn or was edited"),
        (lambda lines: [], 1, "another first line"),
    ],
)
def test_a_damaged_baseline_is_one_line_with_file_and_line(fleet, capsys, change, line, said):
    file = write_baseline(fleet, fleet.run())
    lines = file.read_text().splitlines()
    changed = change(lines)
    file.write_text("".join(f"{each}\n" for each in changed))
    capsys.readouterr()
    assert check(fleet.run(), file) == 2
    error = capsys.readouterr().err
    number = line if line > 0 else len(changed) + 1 + line if line < 0 else len(changed) + 1
    assert f"{file}:{number}: " in error
    assert said in error
    assert error.count("\n") == 1


def test_a_baseline_of_another_schema_says_so(fleet, capsys):
    from mixprof.reports.gate import baseline

    file = write_baseline(fleet, fleet.run())
    lines = file.read_text().splitlines()
    lines[1] = baseline._sealed("schema 2")
    file.write_text("\n".join(lines) + "\n")
    assert check(fleet.run(), file) == 2
    assert "got schema 2, expected 1" in capsys.readouterr().err


def test_runs_that_do_not_compare_make_no_baseline(fleet, capsys):
    runs = [str(fleet.run()), str(fleet.run(testbed={**CPU, "threads": 8}))]
    assert main.main(["baseline", *runs, "--out", str(fleet.folder / "x.txt")]) == 4
    assert "threads 2 there, 8 here" in capsys.readouterr().err


def test_a_baseline_of_another_machine_is_incomparable(fleet, capsys):
    file = write_baseline(fleet, fleet.run())
    assert outcome(capsys, fleet.run(testbed={**CPU, "cpu": "B"}), file)["exit_code"] == 4


def test_limits_and_thresholds_of_patterns_judge_a_stored_run_too(fleet, capsys):
    history = fleet.history(8)
    found = outcome(capsys, fleet.run(slower=1.1, day=9), history, "--threshold", "depthwise_conv *=0.2")
    assert verdicts(found) == {"depthwise_conv": "same", "window_attention": "same"}
    found = outcome(capsys, fleet.run(day=9), history, "--limit", "depthwise_conv *:latency<=1us")
    assert (verdicts(found)["depthwise_conv"], found["exit_code"]) == ("regressed", 1)
    assert "over the limit of 0.001 ms" in found["cases"][0]["reason"]
    found = outcome(capsys, fleet.run(day=9), history, "--limit", "latency<=1s")
    assert (set(verdicts(found).values()), found["exit_code"]) == ({"same"}, 0)
    assert check(fleet.run(day=9), history, "--threshold", "nothing=0.1") == 2


def verdicts_by_name(found):
    return {each["name"]: each["verdict"] for each in found["cases"]}


def on_gpu(of, gpu_ms, enqueue_ms):
    launches = tuple(
        replace(launch((g, g, g), "gpu_ms"), round=k, enqueue_ms=Samples((e, e, e), 1))
        for k, (g, e) in enumerate(zip(gpu_ms, enqueue_ms, strict=True))
    )
    return Record(of, "ok", launches=launches, **EXACT)


GPU_ANCHOR, GPU_CONV = case("anchor_v2", device="cuda:0", channels=None, window=None), case(device="cuda:0")


def gpu_run(fleet, day=0, slower=1.0, conv=None):
    noise = np.exp(fleet.random.normal(0, 0.004, (4, 3)))
    anchor = on_gpu(GPU_ANCHOR, 2.0 * noise[0], noise[1])
    fleet.number += 1
    records = [anchor, conv or on_gpu(GPU_CONV, 3.0 * noise[2], 4.0 * slower * noise[3])]
    return write_run(fleet.folder / f"run{fleet.number}", records, manifest(day))


def test_the_time_to_enqueue_is_judged_beside_the_device(fleet, capsys):
    """A GPU's case as fast on the device, a third slower in Python: a regression of the host's alone."""
    history = fleet.folder / "history"
    for day in range(10):
        check(gpu_run(fleet, day), history, "--add", "--on-inconclusive", "pass")
    found = outcome(capsys, gpu_run(fleet, 11, 1.33), history)
    label = GPU_CONV.label()
    assert verdicts_by_name(found) == {label: "same", f"{label} host": "regressed"}
    assert [(each["time"], each["case"]["mode"]) for each in found["cases"]] == [(None, "hot"), ("host", "hot")]
    assert found["exit_code"] == 1
    assert "--devices cuda:0 --dtypes float32 --layouts channels_last --modes hot " in " ".join(found["notes"])


@pytest.mark.parametrize(
    ("status", "verdict"), [("oom", "missing"), ("unstable", "inconclusive"), ("crashed", "missing")]
)
def test_a_gpu_case_that_is_lost_is_judged_once(fleet, capsys, status, verdict):
    base = gpu_run(fleet)
    found = outcome(capsys, gpu_run(fleet, 1, conv=Record(GPU_CONV, status, "why")), base)
    assert verdicts_by_name(found) == {GPU_CONV.label(): verdict}
    without_anchor = write_run(fleet.folder / "bare", [on_gpu(GPU_CONV, [3.0] * 3, [4.0] * 3)], manifest(2))
    found = outcome(capsys, without_anchor, base)
    assert set(verdicts_by_name(found).values()) == {"incomparable"}


def test_baselines_that_have_the_hosts_time_as_a_mode_are_read(fleet):
    """Both forms of file, with "hot host" in the place of a time."""
    run = of_run(gpu_run(fleet))
    assert set(run.cases) == {Timed(GPU_CONV), Timed(GPU_CONV, HOST)}
    fields = json.loads(json.dumps(run.to_json()))
    assert Stored.from_json(fields) == run
    for each in fields["cases"]:
        each["case"]["mode"] += " host" * (each.pop("time", "") == HOST)
    assert Stored.from_json(fields) == run
    lines = [line.rpartition("  #")[0] for line in baseline.as_text(baseline.of_runs("a run", [run])).splitlines()]
    older = [
        line.replace("mode=hot ", "mode=hot%20host ").replace(" time=host", "") if " time=host" in line else line
        for line in lines
    ]
    assert older != lines
    file = fleet.folder / "baseline.txt"
    for each in (lines, older):
        file.write_text("\n".join([baseline.TITLE, *(f"{line}  #{digest(line)[:6]}" for line in each[1:])]) + "\n")
        assert set(baseline.read(file).newest.cases) == set(run.cases)
