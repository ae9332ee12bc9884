"""sim:0 through the command line: launches, reports, pairs, verdicts; what is simulated says so and is never mixed."""

import csv
import json
import statistics
from typing import Any

import pytest
from filelock import FileLock

from mixprof.cli import main
from mixprof.data.run_folder import read_manifest, read_records
from mixprof.gate import lock
from mixprof.plan.settings import Axes
from toy_repository import Repository, mixprof

# `tiny` launches take the host as long as any other, and the device next to nothing beside `large` ones.
NET = """
import torch
from torch import nn


class Mixer(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, x):
        y = x * self.scale
        for _ in range({large}):
            y = y + x
        small = self.scale[:1]
        for _ in range({tiny}):
            small = small * 1.0
        return y + 0 * small


def mixer(channels):
    return Mixer(channels)
"""
AXES = ("--models", "net:mixer", "--devices", "sim:0", "--channels", "32", "--threads", "1", "--max-lost-cpu", "1")


def net(large, tiny):
    return NET.replace("{large}", str(large)).replace("{tiny}", str(tiny))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A sweep of two mixers at two sides."""
    folder = tmp_path_factory.mktemp("sim") / "run"
    models = ["--models", "depthwise_conv,window_attention", "--resolutions", "14,28"]
    assert main.main(["sweep", *models, "--devices", "sim:0", "--quick", "--out", str(folder)]) == 0
    return folder


@pytest.mark.slow
def test_every_case_is_right_on_the_cpu_and_timed_as_its_kernels_take(run):
    records: list[Any] = list(read_records(run))
    assert {record.status for record in records} == {"ok"}
    assert {record.case.model for record in records} == {"anchor_v2", "depthwise_conv", "window_attention"}
    for record in records:
        truth, (launch,) = record.proof["simulated"]["truth"]["hot"], record.launches
        assert record.relative_error < 0.01
        assert statistics.median(launch.gpu_ms.samples) == pytest.approx(truth["gpu_ms"], rel=0.01)
        assert launch.queued.launches == truth["launches"]
        assert truth["launches"] == (1 if record.case.is_anchor else record.proof["simulated"]["kernels"])


@pytest.mark.slow
def test_a_report_says_everywhere_that_it_is_simulated(run, tmp_path):
    assert main.main(["report", str(run), "--out", str(tmp_path)]) == 0
    words = "no time in here was measured"
    assert words in (tmp_path / "summary.md").read_text()
    assert words in (tmp_path / "index.html").read_text()
    assert "Simulated: Latency" in (tmp_path / "index.html").read_text()
    with (tmp_path / "results.csv").open() as file:
        assert {row["simulated"] for row in csv.DictReader(file)} == {"True"}
    figures = list(tmp_path.glob("*.svg"))
    assert figures
    assert read_manifest(run).environment.testbed["simulated"].startswith("sim:0 ")


@pytest.mark.slow
def test_simulated_runs_stand_beside_no_measured_ones(run, tmp_path, capsys):
    axes = ["--models", "pointwise_conv", "--resolutions", "14", "--quick", "--devices"]
    assert main.main(["sweep", *axes, "cpu", "--out", str(tmp_path / "measured")]) == 0
    assert main.main(["report", str(run), str(tmp_path / "measured"), "--out", str(tmp_path / "report")]) == 2
    assert "got simulated runs beside measured ones" in capsys.readouterr().err
    assert main.main(["time", "pointwise_conv", "--devices", "cpu,sim:0"]) == 2
    assert "got sim:0 beside cpu, expected simulated devices alone" in capsys.readouterr().err
    axes = ["--models", "pointwise_conv", "--devices", "cpu", "--base-set", "dtype=float32", "--head-set"]
    assert main.main(["ab", *axes, "device=sim:0"]) == 2


@pytest.mark.slow
def test_a_gpu_that_is_too_small_is_out_of_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXPROF_SIM", "memory_mib=8")
    axes = ["--models", "window_attention", "--resolutions", "56", "--batches", "1,4", "--devices", "sim:0", "--quick"]
    assert main.main(["sweep", *axes, "--out", str(tmp_path / "run")]) == 0
    records: dict[int, Any] = {
        record.case.batch: record for record in read_records(tmp_path / "run") if not record.case.is_anchor
    }
    assert (records[1].status, records[4].status) == ("ok", "oom")
    assert "simulated GPU out of memory: tried to allocate" in records[4].reason


@pytest.mark.slow
def test_a_file_and_other_runtimes_are_not_simulated(tmp_path):
    axes = ["--models", "pointwise_conv", "--resolutions", "14", "--devices", "sim:0", "--quick"]
    assert main.main(["sweep", *axes, "--lowerings", "onnxruntime", "--out", str(tmp_path / "run")]) == 0
    (reason,) = {record.reason for record in read_records(tmp_path / "run")}
    assert reason == "lowering 'onnxruntime': sim:0 simulates eager and compile alone"


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """BASE of 20 launches; the same; 5 % slower on the device; a third slower on the host alone."""
    made = Repository(tmp_path_factory.mktemp("toy") / "repository")
    made.commit("base", net=net(large=100, tiny=5))
    made.commit("same", net=net(large=100, tiny=5) + "# a comment\n")
    made.commit("device", net=net(large=105, tiny=5))
    made.commit("host", net=net(large=100, tiny=40))
    return made


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "device", "host", "code"),
    [("same", "same", "same", 0), ("device", "regressed", "regressed", 1), ("host", "same", "regressed", 1)],
)
def test_ab_finds_five_percent_and_which_side_they_are_on(repository, monkeypatch, head, device, host, code):
    monkeypatch.setenv("MIXPROF_SIM", "l2_gb_s=5,dram_gb_s=5")  # 0.6 MB of a large launch take 120 us
    axes = ("--resolutions", "56", *AXES)
    done = mixprof(repository.folder, "ab", "base", head, "--json", *axes)
    outcome = json.loads(done.stdout)
    verdicts = {judged["time"]: judged["verdict"] for judged in outcome["cases"]}
    assert verdicts == {None: device, "host": host}, done.stdout
    assert done.returncode == code
    if head == "device":
        (change,) = (judged["change"] for judged in outcome["cases"] if judged["time"] is None)
        assert change == pytest.approx(0.05, abs=0.01)


@pytest.mark.long
@pytest.mark.slow
def test_calibrate_is_quiet_and_finds_what_is_injected(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MIXPROF_CACHE", str(tmp_path))
    axes = ["--models", "pointwise_conv", "--resolutions", "14,28", "--batches", "1,2", "--layouts", "channels_last"]
    axes += ["--devices", "sim:0", "--max-lost-cpu", "1"]
    assert main.main(["calibrate", *axes, "--json"]) == 0
    kept = json.loads(capsys.readouterr().out)
    assert kept["false_alarms"]["share"] <= 0.01
    assert kept["power"]["share"] == 1.0


def test_a_gate_on_a_virtual_clock_waits_for_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "LOCK", tmp_path / "gate.lock")
    said: list[str] = []
    with FileLock(lock.LOCK), lock.only_one([Axes(devices=("sim:0",))], said.append):
        pass
    assert said == []
