"""Our times beside trtexec's. Both sides are real processes where no GPU is needed; the rest is pure functions."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mixprof import models
from mixprof.data import cache, run_folder
from mixprof.data.errors import UsageError
from mixprof.data.launch import Launch, Samples
from mixprof.data.manifest import Checked, CrossCheck, Environment
from mixprof.data.messages import Machine
from mixprof.data.record import Record
from mixprof.plan.axes import Planned, expand
from mixprof.plan.settings import Axes, Measure
from mixprof.run import agreement, crosscheck
from mixprof.run.agreement import AGREED, DISAGREED, OURS, THEIRS, UNCHECKED
from mixprof.run.session import session
from synthetic_runs import MANIFEST, case, launch, write_run
from test_trtexec import ONE_LINE_EACH

TESTS = Path(__file__).parent
KEY = "0123456789abcdef"


def engine_case(**changes):
    fields = {"lowering": "tensorrt_rtx", "device": "cuda:0", "dtype": "float16"}
    return case(**{**fields, **changes})


def engine_record(status="ok", reason=None, proof=None, **changes):
    """A record of an engine that lies in the cache."""
    made = {"engine_key": KEY, "engine_sha256": cache.sha256(b"engine"), "profile": {}, "shapes": {}}
    launches = (launch([2.0, 2.0], "gpu_ms"), launch([8.0, 8.0], "gpu_ms"))
    return Record(
        engine_case(**changes), status, reason, launches, proof={"tensorrt_version": "1.7.1", **made, **(proof or {})}
    )


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXPROF_CACHE", str(tmp_path / "cache"))
    cache.store(KEY, b"engine", {})


@pytest.fixture
def tool(tmp_path):
    """A program that stands for trtexec and prints as NVIDIA documents it: always 2 ms."""
    path = tmp_path / "trtexec"
    path.write_text(f"#!{sys.executable}\nprint({ONE_LINE_EACH.format('2')!r})\n")
    path.chmod(0o755)
    return str(path)


def block(ours, theirs):
    return [(OURS, ours), (THEIRS, theirs), (THEIRS, theirs), (OURS, ours)]


def test_turns_are_blocks_of_a_b_b_a_with_a_drawn_start():
    order = agreement.schedule(200, seed=1)
    assert set(order) == {(OURS, THEIRS, THEIRS, OURS), (THEIRS, OURS, OURS, THEIRS)}
    starts = sum(sides[0] == OURS for sides in order)
    assert 60 < starts < 140
    assert order == agreement.schedule(200, seed=1) != agreement.schedule(200, seed=2)


@pytest.mark.parametrize("seed", range(4))
def test_a_steady_drift_of_the_machine_does_not_move_the_ratio(seed):
    truth = {OURS: 1.03, THEIRS: 1.0}
    times, turn = [], 0
    for sides in agreement.schedule(5, seed):
        taken = []
        for side in sides:
            taken.append((side, truth[side] * math.exp(0.05 * turn)))
            turn += 1
        times.append(taken)
    mark, ratio = agreement.verdict(times)
    assert mark == DISAGREED
    assert ratio == pytest.approx(1.03)


@pytest.mark.parametrize(
    ("ours", "mark"),
    [(1.0, AGREED), (1.0199, AGREED), (1 / 1.0199, AGREED), (1.0201, DISAGREED), (1 / 1.0201, DISAGREED)],
)
def test_agreed_is_within_two_percent_either_way(ours, mark):
    assert agreement.verdict([block(ours, 1.0)] * 5) == (mark, pytest.approx(ours))


def test_one_disturbed_block_of_five_decides_nothing():
    assert agreement.verdict([block(1.0, 1.0)] * 4 + [block(3.0, 1.0)])[0] == AGREED


def test_an_entry_holds_the_times_their_medians_and_the_runs_own_figure():
    entry = agreement.checked(engine_record(), [block(2.0, 1.9)] * 5, "trtexec --x")
    assert (entry.ours_ms, entry.trtexec_ms, entry.recorded_ms) == (2.0, 1.9, pytest.approx(4.0))
    assert (entry.mark, entry.ratio, entry.command) == (DISAGREED, pytest.approx(2 / 1.9), "trtexec --x")
    assert entry.times_ms is not None
    assert entry.times_ms[0][0] == (OURS, 2.0)
    (row,) = agreement.rows(CrossCheck((entry,)))
    assert (row["flavour"], row["ours / trtexec"], row["mark"]) == ("tensorrt_rtx 1.7.1", "1.053", DISAGREED)


@pytest.mark.parametrize(
    ("marks", "code"),
    [([AGREED], 0), ([AGREED, UNCHECKED], 0), ([AGREED, DISAGREED], 4), ([UNCHECKED], 4), ([], 4)],
)
def test_the_exit_code_is_0_only_when_something_was_checked_and_all_of_it_agrees(marks, code):
    assert agreement.exit_code(CrossCheck(tuple(Checked(case(), mark) for mark in marks))) == code


def test_a_program_belongs_to_the_flavour_in_its_name_and_must_exist(tool, tmp_path):
    rtx = tmp_path / "tensorrt_rtx"
    rtx.symlink_to(tool)
    assert crosscheck.programs([tool, str(rtx)]) == {"tensorrt": tool, "tensorrt_rtx": str(rtx)}
    with pytest.raises(UsageError, match=r"got --with 'no/trtexec'.*expected trtexec.*Debian"):
        crosscheck.programs(["no/trtexec"])
    with pytest.raises(UsageError, match=r"got --with 'no_rtx'.*expected tensorrt_rtx.*SDK"):
        crosscheck.programs(["no_rtx"])
    with pytest.raises(UsageError, match="expected one program for tensorrt"):
        crosscheck.programs([tool, tool])


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (engine_record("built", "no device"), "status is built: no device"),
        (engine_record(mode="cold"), "mode is cold"),
        (engine_record(lowering="tensorrt"), "trtexec is not installed, or not named by --with: it is in bin/"),
        (engine_record(proof={"engine_sha256": "other"}), "its engine is not in"),
        (engine_record(proof={"engine_key": "../../elsewhere"}), "its engine is not in"),
        (engine_record(proof={"engine_key": None}), "names no engine of the cache"),
        (engine_record(), None),
    ],
)
def test_why_a_figure_is_not_checked(own_cache, record, said):
    found = crosscheck.why_not(record, {"tensorrt_rtx": "tool"})
    assert found is None if said is None else said in (found or "")


def test_a_damaged_engine_is_not_timed(own_cache):
    cache.engine_path(KEY).write_bytes(b"another")
    assert "its engine is not in" in (crosscheck.why_not(engine_record(), {"tensorrt_rtx": "tool"}) or "")


@pytest.mark.parametrize(
    ("then", "devices", "gpus", "said"),
    [
        (["A sm_80"], ["cpu", "cuda:0"], ["A sm_80"], None),
        (None, ["cpu", "cuda:0"], ["A sm_80"], None),
        (["A sm_80"], ["cpu", "cuda:0"], ["B sm_90"], "another device: measured on A sm_80, here cuda:0 is B sm_90"),
        (["A sm_80"], ["cpu"], None, "cuda:0 is not there"),
    ],
)
def test_another_device_is_said(then, devices, gpus, said):
    here = Machine(tuple(devices), testbed={"gpus": gpus})
    assert crosscheck.elsewhere(engine_record(), {"gpus": then}, here) == said


def test_a_launch_of_another_engine_or_one_that_failed_is_not_compared():
    record = engine_record()
    times = Samples((1.0, 3.0, 2.0), 1)
    same = Launch("ok", gpu_ms=times, proof={"engine_sha256": cache.sha256(b"engine")})
    assert crosscheck.median_ms(same, record) == 2.0
    with pytest.raises(crosscheck.Unchecked, match="another engine"):
        crosscheck.median_ms(Launch("ok", gpu_ms=times, proof={"engine_sha256": "x"}), record)
    with pytest.raises(crosscheck.Unchecked, match="ended as unstable: drifting"):
        crosscheck.median_ms(Launch("unstable", "drifting", gpu_ms=times), record)
    with pytest.raises(crosscheck.Unchecked, match="ended as ok"):
        crosscheck.median_ms(Launch("ok", host_ms=times), record)


def test_a_block_takes_turns_between_worker_processes_and_the_program(tool, tmp_path):
    """On the CPU, where ours can really run: eager PyTorch in a worker against the program that prints 2 ms."""
    from mixprof.lowerings.tensorrt import trtexec
    from mixprof.plan import sources

    def describe(name):
        return sources.describe(name, models, lambda _: sources.Described((), ""))

    (entry,) = expand([Axes(models=("depthwise_conv",), resolutions=((7, 7),), channels=(32,))], describe, ["cpu"])
    planned = Planned(entry.case, entry.source)
    measure = Measure(quick=True, threads=1, max_lost_cpu=1.0)
    turns = []

    def theirs():
        turns.append(trtexec.time(tool, [], graphed=False, timeout_s=30))
        return turns[-1]

    order = (OURS, THEIRS, THEIRS, OURS)
    taken = crosscheck.block_times(order, planned, Record(entry.case, "ok"), measure, tmp_path / "scratch", theirs)
    assert tuple(side for side, _ in taken) == order
    assert turns == [2.0, 2.0]
    assert all(0 < ms < 1000 for _, ms in taken)
    assert taken[0][1] != taken[3][1]  # two launches, not one figure twice


@pytest.mark.slow
def test_an_engine_is_timed_by_both_and_marked(own_cache, tool, monkeypatch):
    """All but our launch is real: that one needs a GPU, and a figure stands in for it."""
    figure = Launch("ok", gpu_ms=Samples((2.02,), 1), proof={"engine_sha256": cache.sha256(b"engine")})
    monkeypatch.setattr(crosscheck.launching, "launch_case", lambda *_: figure)
    record, measure = engine_record(lowering="tensorrt"), Measure(quick=True, threads=1)
    with session(measure, models) as asked:
        entry = crosscheck._timed(record, asked, {"tensorrt": tool}, measure, agreement.schedule(5, seed=0))
    assert (entry.mark, entry.ratio) == (AGREED, pytest.approx(1.01))
    assert [len(block) for block in entry.times_ms or ()] == [4] * 5
    assert str(entry.command).startswith(f"{tool} --loadEngine={cache.engine_path(KEY)} --device=0")


def mixprof(*arguments):
    command = [sys.executable, "-m", "mixprof", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent / "src")}
    return subprocess.run(command, cwd=TESTS, env=environment, capture_output=True, text=True, timeout=300)


def test_without_a_gpu_nothing_is_checked_and_the_reason_is_written(own_cache, tool, tmp_path):
    records = [engine_record("built", "no device"), engine_record(lowering="tensorrt"), Record(case(), "ok")]
    run = write_run(tmp_path / "run", records)
    done = mixprof("crosscheck", run, "--with", tool)
    assert done.returncode == 4, done.stderr
    marks = {of.lowering: entry for of, entry in run_folder.read_crosscheck(run).items()}
    assert set(marks) == {"tensorrt_rtx", "tensorrt"}  # eager is not TensorRT's
    assert marks["tensorrt_rtx"].reason == "status is built: no device"
    assert marks["tensorrt"].mark == UNCHECKED
    assert "0 agreed within 2%, 0 disagreed, 2 not checked" in done.stdout
    assert "tensorrt_rtx 1.7.1" in done.stdout
    assert {path.name for path in run.iterdir()} == {"manifest.json", "records.jsonl", "lock", "crosscheck.json"}


def test_a_device_that_is_not_here_is_found_by_a_worker(own_cache, tool, tmp_path):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    manifest = replace(MANIFEST, environment=Environment({"gpus": ["A sm_80"]}), measure={"quick": True})
    run = write_run(tmp_path / "run", [engine_record(lowering="tensorrt")], manifest)
    done = mixprof("crosscheck", run, "--with", tool, "--json")
    assert done.returncode == 4, done.stderr
    (entry,) = json.loads(done.stdout)["cases"]
    assert entry["reason"] == "cuda:0 is not there"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--with", "no_such_trtexec"), "got --with 'no_such_trtexec'"),
        (("--blocks", "4"), "--blocks: got '4', expected a whole number from 5 up"),
        (("--seed", "x"), "--seed: got 'x'"),
    ],
)
def test_wrong_usage_is_one_line_and_2(tmp_path, more, said):
    done = mixprof("crosscheck", write_run(tmp_path / "run", [engine_record()]), *more)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_folder_that_is_no_run_and_a_run_without_engines_are_2(tmp_path):
    for folder, said in (
        (tmp_path, "no manifest.json"),
        (write_run(tmp_path / "run", []), "has no record of tensorrt"),
    ):
        done = mixprof("crosscheck", folder)
        assert done.returncode == 2
        assert said in done.stderr


def test_a_broken_file_of_marks_is_told(tmp_path):
    run = write_run(tmp_path / "run", [])
    (run / run_folder.CROSSCHECK).write_text('{"schema": 1, "cases": [{}]}')
    with pytest.raises(UsageError, match="`mixprof crosscheck` writes; run it again"):
        run_folder.read_crosscheck(run)
