"""The command line as a user meets it: real processes, exit codes, one line for an error."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mixprof.data import run_folder

TESTS = Path(__file__).parent
QUICK = ("--quick", "--threads", "1", "--max-lost-cpu", "1")


def mixprof(*arguments, cwd=TESTS, timeout=300):
    command = [sys.executable, "-m", "mixprof", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent / "src")}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small finished run, and what its sweep printed."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    done = mixprof(
        "sweep", "--models", "depthwise_conv,window_attention", "--resolutions", "7,14", "--windows", "3,4",
        "--channels", "32", "--out", folder, *QUICK,
    )  # fmt: skip
    return folder, done


def test_a_sweep_writes_a_record_for_every_case_and_says_so(run):
    folder, done = run
    assert done.returncode == 0, done.stderr
    records = run_folder.read_records(folder)
    statuses = {(record.case.model, record.case.window): record.status for record in records}
    assert statuses == {
        ("anchor_v1", None): "ok",
        ("depthwise_conv", 3): "ok",
        ("depthwise_conv", 4): "unsupported",
        ("window_attention", 3): "ok",
        ("window_attention", 4): "ok",
    }
    assert len(records) == 9
    assert "7 ok, 2 unsupported" in done.stdout
    assert "\r" not in done.stderr
    assert re.search(r"\n\[7/7\] elapsed 0:\d\d, 0:\d\d left  ", done.stderr)


def test_a_report_of_it_has_figures_and_data(run, tmp_path):
    done = mixprof("report", run[0], "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / "report").rglob("*")}
    assert {"index.html", "results.csv", "results.parquet", "summary.md"} <= names
    assert any(name.endswith(".png") for name in names)
    assert any(name.endswith(".svg") for name in names)


@pytest.mark.slow
def test_a_relative_folder_is_as_good_as_an_absolute_one(tmp_path):
    axes = ("--models", "depthwise_conv", "--resolutions", "7", "--channels", "32")
    done = mixprof("sweep", *axes, "--out", "runs/mine", "--strict", *QUICK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {record.status for record in run_folder.read_records(tmp_path / "runs" / "mine")} == {"ok"}


def test_strict_asks_for_every_case_to_be_ok(run, tmp_path):
    axes = ("--models", "depthwise_conv", "--resolutions", "7", "--windows", "3,4", "--channels", "32")
    done = mixprof("sweep", *axes, "--out", tmp_path / "run", "--strict", *QUICK)
    assert done.returncode == 4


def test_resuming_a_finished_run_measures_nothing(run):
    folder = run[0]
    before = (folder / "launches.jsonl").read_bytes()
    with (folder / "records.jsonl").open("a") as file:
        file.write('{"schema": 1, "ca')
    axes = ("--models", "depthwise_conv,window_attention", "--resolutions", "7,14", "--windows", "3,4")
    done = mixprof("sweep", *axes, "--channels", "32", "--out", folder, "--resume", *QUICK)
    assert done.returncode == 0, done.stderr
    assert "torn last line" in done.stderr
    assert (folder / "records.jsonl.torn").exists()
    assert (folder / "launches.jsonl").read_bytes() == before
    assert len(run_folder.read_records(folder)) == 9


@pytest.mark.slow
def test_refining_adds_cases_where_two_models_swap_places_and_resumes(tmp_path):
    folder = tmp_path / "run"
    axes = ("--models", "toys:sleeps_with_area,toys:sleeps_alike", "--resolutions", "14,56", "--channels", "32")
    command = ("sweep", *axes, "--refine", "crossover", "--out", folder, *QUICK)
    done = mixprof(*command)
    assert done.returncode == 0, done.stderr
    records = run_folder.read_records(folder)
    sides = {record.case.resolution[0] for record in records if record.case.model != "anchor_v1"}
    assert {14, 28, 40, 56} <= sides
    assert all(28 < side < 40 for side in sides - {14, 28, 40, 56})
    assert "more cases between those where two models swap places" in done.stderr
    assert f"{len(records)} ok" in done.stdout
    for name in ("launches.jsonl", "records.jsonl"):  # as if it had been killed before the last case
        kept = (folder / name).read_text().splitlines(keepends=True)[:-1]
        (folder / name).write_text("".join(kept))
    done = mixprof(*command, "--resume")
    assert done.returncode == 0, done.stderr
    assert {record.case for record in records} <= {record.case for record in run_folder.read_records(folder)}
    assert "not yet run" not in done.stdout
    before = (folder / "launches.jsonl").read_bytes()
    done = mixprof(*command, "--resume")
    assert done.returncode == 0, done.stderr
    assert (folder / "launches.jsonl").read_bytes() == before


def test_resuming_in_another_environment_is_refused(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run[0], folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["versions"]["torch"] = "1.0"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    axes = ("--models", "depthwise_conv,window_attention", "--resolutions", "7,14", "--windows", "3,4")
    done = mixprof("sweep", *axes, "--channels", "32", "--out", folder, "--resume", *QUICK)
    assert done.returncode == 4
    assert "versions.torch = 1.0" in done.stderr


def test_time_prints_a_table_and_leaves_nothing_behind(tmp_path):
    done = mixprof("time", "depthwise_conv", "--resolutions", "7", "--channels", "32", *QUICK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "depthwise_conv" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_json_is_all_that_count_plan_and_doctor_print():
    counted = json.loads(mixprof("count", "depthwise_conv", "--resolution", "7", "--batch", "2", "--json").stdout)
    n, c, k = 2 * 7 * 7, 96, 7
    assert counted["macs"] == 2 * n * c * c + n * k * k * c
    assert counted["flops"] == 2 * counted["macs"] == 2 * sum(counted["macs_by_op"].values())
    assert counted["params"] == 2 * c * c + k * k * c + c + 6 * c
    costs = {"params", "macs", "flops", "macs_by_op", "min_bytes", "uncounted_ops", "counted_on"}
    costs |= {"step", "backward_macs", "optimizer_bytes"}
    assert set(counted) == {"model", *costs}
    assert counted["counted_on"] == "meta"
    planned = json.loads(mixprof("plan", "--models", "depthwise_conv", "--windows", "3,4", "--json").stdout)
    assert [case["runs"] for case in planned["cases"]] == [True, True, False]  # the anchor comes first
    assert planned["cases"][1]["macs"] == 56 * 56 * (2 * c * c + 9 * c)
    assert planned["cases"][1]["predicted_memory_bytes"] > 56 * 56 * c * 4
    found = json.loads(mixprof("doctor", "--json").stdout)
    assert found["lowerings"]["eager"] == {"works": True, "reason": None}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("count", "swin_x"), "swin_t"),
        (("count", "swin_t:mixer=depthwise"), "depthwise_conv"),
        (("count", "swin_t", "--resolution", "16"), "at least 32"),
        (("count", "depthwise_conv", "--window", "4"), "odd"),
        (("time", "swin_t", "--lowerings", "eagre"), "expected eager"),
        (("time", "swin_t", "--lowerings", "compile:fast"), "option 'fast'"),
        (("time", "swin_t", "--batches", "0"), "--batches: got '0'"),
        (("time", "swin_t", "--launches", "0"), "--launches: got '0'"),
        (("time", "swin_t", "--batch", "1"), "unrecognized arguments: --batch"),
        (("time", "swin_t", "--quick", "--publication"), "at most one"),
        (("time", "toys:none", *QUICK), "cannot be imported"),
        (("time", "no.such:factory", *QUICK), "cannot be imported"),
        (("time", "timm:resnet18"), "pip install 'mixprof[zoo]'"),
        (("plan", "--models", "dwnet_t", "--windows", "4"), "odd"),
        (("plan", "missing.toml"), "missing.toml"),
        (("sweep", "--resume"), "--out RUN"),
        (("plan", "--models", "anchor_v1"), "expected another model"),
        (("count", "swin_t", "--resolution", "224,256"), "got 2 values"),
        (("report", "no/run", "--out", "there"), "expected a run folder"),
        (("nothing",), "invalid choice"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, said, tmp_path):
    done = mixprof(*arguments)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_an_existing_folder_is_not_overwritten(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    done = mixprof("sweep", "--models", "depthwise_conv", "--out", tmp_path)
    assert done.returncode == 2
    assert "which exists" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_resuming_with_other_axes_is_refused(run):
    done = mixprof("sweep", "--models", "depthwise_conv", "--out", run[0], "--resume", *QUICK)
    assert done.returncode == 2
    assert "other axes" in done.stderr


def test_a_wrong_key_names_file_line_and_the_nearest_key(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[[group]]\nmodels = ["swin_t"]\nresolution = [64]\n')
    done = mixprof("plan", path)
    assert done.returncode == 2
    assert f"{path}:3: got key 'resolution', expected resolutions" in done.stderr


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_that_cannot_be_written_is_74(tmp_path):
    tmp_path.chmod(0o500)
    done = mixprof("sweep", "--models", "depthwise_conv", "--out", tmp_path / "run", *QUICK)
    assert done.returncode == 74


def test_an_interrupt_ends_after_the_launch_and_the_run_goes_on_later(tmp_path):
    folder = tmp_path / "run"
    axes = [
        "--models",
        "depthwise_conv",
        "--resolutions",
        "7,9,11,13",
        "--channels",
        "32",
        "--threads",
        "1",
        "--max-lost-cpu",
        "1",
    ]
    command = [sys.executable, "-m", "mixprof", "sweep", *axes, "--quick", "--launches", "2", "--out", str(folder)]
    process = subprocess.Popen(command, cwd=TESTS, env={**os.environ, "PYTHONPATH": str(TESTS.parent / "src")})
    journal = folder / "launches.jsonl"
    deadline = time.monotonic() + 120
    while not (journal.exists() and journal.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 130
    done = len(run_folder.read_launches(folder))
    assert 0 < done < 10
    again = mixprof(*command[3:], "--resume")
    assert again.returncode == 0, again.stderr
    assert len(run_folder.read_launches(folder)) == 10
    assert {record.status for record in run_folder.read_records(folder)} == {"ok"}
