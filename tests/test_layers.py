"""Times of the layers of an engine, in a launch of their own. No engine has run here: what is summed, what is kept."""

from pathlib import Path

import pytest
import torch

from mixprof import lowerings
from mixprof.data import run_folder
from mixprof.data.errors import Unsupported
from mixprof.data.launch import Launch
from mixprof.lowerings import roles
from mixprof.lowerings.roles import role_times
from mixprof.plan.settings import Measure
from mixprof.reports.frame import ROLES
from mixprof.run.journal import Journal
from mixprof.worker import breakdown
from synthetic_runs import case, launch
from test_cli import mixprof
from test_executor import plan, run_all

ENGINE = case(lowering="tensorrt_rtx", device="cuda:0", dtype="float16")
LAYERS = {"layer_ms": {"a": 1.0}, "role_ms": {"mixer": 1.0}}


def timed(round):
    one = launch([2.0] * 3, "gpu_ms")
    return Launch("ok", round=round, gpu_ms=one.gpu_ms, build_s=1.0, proof={"kernels": 7})


def test_layers_sum_to_their_roles_and_an_unknown_one_is_other():
    roles = {"a": "mixer", "b": "mlp", "c": "mixer"}
    assert role_times({"a": 1.0, "b": 2.0, "c": 4.0, "reformat": 8.0}, roles) == {"mixer": 5, "mlp": 2, "other": 8}


def test_the_report_has_a_column_for_every_role():
    assert ROLES == roles.ROLES


@pytest.mark.parametrize(
    ("last", "proof"),
    [
        (Launch("ok", round=2, proof=LAYERS), {"kernels": 7, **LAYERS}),
        (Launch("crashed", "no profiler", round=2), {"kernels": 7, "layers_missing": "crashed: no profiler"}),
    ],
)
def test_a_record_waits_for_its_layers_and_keeps_its_times_whatever_they_end_as(tmp_path, last, proof):
    journal = Journal.open(tmp_path, 2, layers=True)
    for round in range(2):
        journal.add(ENGINE, timed(round))
    assert run_folder.read_records(tmp_path) == []
    again = Journal.open(tmp_path, 2, layers=True)  # a sweep that was killed here goes on
    again.add(ENGINE, last)
    (record,) = run_folder.read_records(tmp_path)
    assert (record.status, len(record.launches), record.build_s, record.proof) == ("ok", 2, 1.0, proof)
    assert len(run_folder.read_launches(tmp_path)) == 3


@pytest.mark.parametrize("layers", [False, True])
def test_what_is_no_engine_or_was_not_timed_waits_for_nothing(tmp_path, layers):
    journal = Journal.open(tmp_path, 1, layers=layers)
    journal.add(case(lowering="onnxruntime"), timed(0))
    journal.add(ENGINE, Launch("built", "no device"))
    assert [record.status for record in run_folder.read_records(tmp_path)] == ["ok", "built"]


def test_a_sweep_of_other_lowerings_is_the_same_with_it(tmp_path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parent)
    records, progress = run_all(
        plan("good", lowerings=("onnxruntime",)),
        tmp_path,
        Measure(quick=True, threads=1, max_lost_cpu=1.0, layers=True),
    )
    assert (records["good"].status, len(progress.ended)) == ("ok", 1)


def test_a_launch_for_the_layers_returns_them_with_their_roles():
    def layer_times(forwards):
        return [("a", forwards / 100), ("b", 0.25)]

    lowered = lowerings.Lowered(
        None, lambda: torch.empty(0), 0.0, proof={"roles": {"a": "mixer"}}, layer_times=layer_times
    )
    found = breakdown.of_layers(lowered)
    assert found.status == "ok"
    assert found.proof == {"layer_ms": {"a": 0.5, "b": 0.25}, "role_ms": {"mixer": 0.5, "other": 0.25}}
    with pytest.raises(Unsupported, match="no times of its layers"):
        breakdown.of_layers(lowerings.Lowered(None, lambda: torch.empty(0), 0.0))


@pytest.mark.slow
def test_eager_operators_are_timed_by_role_and_stage_in_a_launch_of_their_own(tmp_path):
    """A network of one's own would do as well; this one has stages, and reaches the run folder with its peaks."""
    axes = ("--models", "dwnet_t", "--resolutions", "32", "--windows", "3", "--out", tmp_path / "run")
    done = mixprof("sweep", *axes, "--layers", "--quick", "--threads", "1", "--max-lost-cpu", "1")
    assert done.returncode == 0, done.stderr
    (record,) = [each for each in run_folder.read_records(tmp_path / "run") if each.case.model == "dwnet_t"]
    assert record.proof is not None
    rows = record.proof["breakdown"]
    assert len(record.launches) == 1  # the launch that was timed
    macs = {role: sum(row["macs"] for row in rows if row["role"] == role) for role in record.proof["role_ms"]}
    assert sum(macs.values()) == record.macs
    assert record.macs == (record.matrix_macs or 0) + (record.vector_macs or 0)
    assert macs["head"] == 768 * 1000
    assert {row["stage"] for row in rows} == {None, 1, 2, 3, 4}
    assert all(row["ms"] > 0 for row in rows)
    assert record.proof["role_ms"]["mixer"] == pytest.approx(sum(r["ms"] for r in rows if r["role"] == "mixer"))
    (peaks,) = run_folder.read_peaks(tmp_path / "run")
    assert (peaks.device, peaks.dtype) == ("cpu", "float32")
    text = mixprof("report", tmp_path / "run", "--out", tmp_path / "report")
    assert text.returncode == 0, text.stderr
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert {"roofline.png", "roofline.svg", "breakdown.png", "breakdown.svg"} <= names
