"""Launches in real worker processes: what they return, and what becomes of those that fail."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from mixprof.data import run_folder
from mixprof.data.case import Case
from mixprof.data.errors import UsageError
from mixprof.data.launch import Launch, Samples
from mixprof.plan.axes import Planned, Source, expand
from mixprof.plan.settings import Axes, Measure
from mixprof.run.client import Server, source_request
from mixprof.run.executors import local

QUICK = Measure(quick=True, timeout=20.0, threads=1, max_lost_cpu=1.0)


def toy(name, kind="mixer"):
    accepts = ("channels",) if kind == "mixer" else ("resolution", "window")
    return Source(f"toys:{name}", {}, accepts, kind, user=True)


def plan(*names, **axes):
    axes = {"resolutions": ((6, 5),), "channels": (32,), "devices": ("cpu",), **axes}
    return expand([Axes(models=names, **axes)], toy, ["cpu"])


class Silent:
    def __init__(self):
        self.ended = []

    def begin(self, case, round):
        pass

    def end(self, case, launch):
        self.ended.append((case.model, launch.status))


@pytest.fixture(autouse=True)
def in_tests_folder(monkeypatch):
    monkeypatch.chdir(Path(__file__).parent)


def run_all(planned, run, measure=QUICK):
    progress = Silent()
    local.execute(planned, run, measure, progress)
    return {record.case.model: record for record in run_folder.read_records(run)}, progress


@pytest.fixture(scope="module")
def failures(tmp_path_factory):
    """One run with every kind of failing case between two good ones."""
    os.chdir(Path(__file__).parent)
    names = ["good", "raises", "refuses", "forward_raises", "not_a_number", "segmentation_fault", "hangs", "spins",
             "too_large", "different"]  # fmt: skip
    run = tmp_path_factory.mktemp("run")
    planned = [*plan(*names), *plan("good", batches=(2,))]
    progress = Silent()
    local.execute(planned, run, Measure(quick=True, timeout=4.0, threads=1, max_lost_cpu=1.0), progress)
    return run, run_folder.read_records(run)


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("good", "ok", None),
        ("raises", "crashed", "RuntimeError: no such"),
        ("refuses", "unsupported", "got channels=32, expected 7"),
        ("forward_raises", "crashed", "IndexError: beyond the edge"),
        ("not_a_number", "inaccurate", "NaN"),
        ("segmentation_fault", "crashed", "SIGSEGV"),
        ("hangs", "timeout", "not done after 4 s"),
        ("spins", "timeout", "not done after 4 s"),
        ("too_large", "oom", "allocate"),
        ("different", "inaccurate", "expected at most 0.0001"),
    ],
)
def test_each_failure_has_its_status_and_reason_and_the_sweep_goes_on(failures, name, status, reason):
    records = [record for record in failures[1] if record.case.model == name]
    assert len(records) == (2 if name == "good" else 1)
    assert {record.status for record in records} == {status}
    if reason is not None:
        assert reason in records[0].reason
        assert "\n" not in records[0].reason


def test_failures_leave_no_scratch_and_no_process(failures):
    run, records = failures
    assert {path.name for path in run.iterdir()} == {"launches.jsonl", "records.jsonl"}
    assert len(records) == 11
    mine = [entry for entry in Path("/proc").glob("[0-9]*/cmdline") if b"mixprof.worker.server" in _read(entry)]
    assert [path for path in mine if str(run).encode() in _read(path.with_name("environ"))] == []


def _read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_good_case_has_everything_measured(failures):
    record = next(record for record in failures[1] if record.case.model == "good")
    assert record.params == 32 * 32 + 32
    assert record.macs == record.case.batch * 6 * 5 * 32 * 32
    assert record.flops == 2 * record.macs
    assert record.uncounted_ops == ()
    assert record.memory.weights_bytes == 4 * record.params
    assert record.memory.allocator_peak_bytes == record.case.batch * 6 * 5 * 32 * 4
    assert 0 <= record.relative_error < 1e-5
    (launch,) = record.launches
    assert len(launch.host_ms.samples) >= 16
    assert launch.gpu_ms is None
    assert min(launch.host_ms.samples) > 0


def test_a_network_takes_images_and_its_window(tmp_path):
    planned = expand(
        [Axes(models=("network",), resolutions=((40, 33),), windows=(3,))], lambda name: toy(name, "network"), ["cpu"]
    )
    records, _ = run_all(planned, tmp_path)
    assert records["network"].status == "ok"
    assert records["network"].macs == 38 * 31 * 4 * 3 * 9


@pytest.mark.slow
def test_rounds_are_seeded_permutations_with_a_launch_of_every_case(tmp_path):
    planned = plan("good", batches=(1, 2, 3))
    measure = Measure(quick=True, launches=2, threads=1, seed=3, max_lost_cpu=1.0)
    run_all(planned, tmp_path, measure)
    order = [(launch.round, case.batch) for case, launch in run_folder.read_launches(tmp_path)]
    assert [round for round, _ in order] == [0, 0, 0, 1, 1, 1]
    assert {batch for _, batch in order[:3]} == {batch for _, batch in order[3:]} == {1, 2, 3}
    again = tmp_path / "again"
    again.mkdir()
    run_all(planned, again, measure)
    assert [(launch.round, case.batch) for case, launch in run_folder.read_launches(again)] == order


def test_going_on_runs_nothing_twice(tmp_path):
    planned = plan("good", batches=(1, 2))
    measure = Measure(quick=True, launches=2, threads=1, max_lost_cpu=1.0)
    stops = iter([False, False, False, True, True, True, True])  # one for the round, one for each launch
    local.execute(planned, tmp_path, measure, Silent(), stop=lambda: next(stops))
    assert 0 < len(run_folder.read_launches(tmp_path)) < 4
    done = len(run_folder.read_launches(tmp_path))
    _, progress = run_all(planned, tmp_path, measure)
    assert len(progress.ended) == 4 - done
    assert len(run_folder.read_records(tmp_path)) == 2
    _, progress = run_all(planned, tmp_path, measure)
    assert progress.ended == []


def test_a_record_lost_between_two_writes_is_written_without_measuring_again(tmp_path):
    planned = plan("good")
    run_all(planned, tmp_path)
    before = run_folder.read_records(tmp_path)
    (tmp_path / "records.jsonl").unlink()
    _, progress = run_all(planned, tmp_path)
    assert progress.ended == []
    assert run_folder.read_records(tmp_path) == before


def test_impossible_and_unavailable_cases_become_records_without_a_process(tmp_path, monkeypatch):
    (entry,) = plan("good")
    planned = [Planned(entry.case, entry.source, "got window=4, expected an odd one")]
    records, _ = run_all(planned, tmp_path)
    assert (records["good"].status, records["good"].reason) == ("unsupported", "got window=4, expected an odd one")


def test_a_cuda_case_on_a_machine_without_one_is_unavailable(tmp_path):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    records, _ = run_all(plan("good", devices=("cuda:0",)), tmp_path)
    assert records["good"].status == "unavailable"
    assert "no CUDA device" in records["good"].reason


@pytest.mark.parametrize(("dtype", "status"), [("bfloat16", "ok"), ("float16", "ok"), ("tf32", "unsupported")])
def test_dtypes_on_a_cpu(tmp_path, dtype, status):
    records, _ = run_all(plan("good", dtypes=(dtype,)), tmp_path)
    assert records["good"].status == status


@pytest.mark.parametrize("lowering", ["compile", "onnxruntime"])
def test_lowerings_agree_with_the_reference_and_build_once_a_run(tmp_path, lowering):
    records, _ = run_all(
        plan("good", lowerings=(lowering,)), tmp_path, Measure(quick=True, launches=2, threads=1, max_lost_cpu=1.0)
    )
    record = records["good"]
    assert record.status == "ok", record.reason
    assert record.relative_error < 1e-5
    assert [launch.build_cached for launch in record.launches] == [False, True]
    if lowering == "compile":
        assert (record.proof["graph_breaks"], record.proof["recompiles"]) == (0, 0)
    else:
        assert record.artifact_bytes > 4 * record.params
        assert record.proof["provider"] == "CPUExecutionProvider"


def test_onnxruntime_says_in_its_own_words_what_it_refuses(tmp_path):
    records, _ = run_all(plan("good", lowerings=("onnxruntime",), dtypes=("bfloat16",)), tmp_path)
    assert records["good"].status == "unsupported"
    assert records["good"].reason.startswith("onnxruntime: ")


def test_a_model_that_cannot_be_exported_is_unsupported_and_the_sweep_goes_on(tmp_path):
    records, _ = run_all(plan("cannot_be_exported", "good", lowerings=("onnxruntime",)), tmp_path)
    assert (records["cannot_be_exported"].status, records["good"].status) == ("unsupported", "ok")
    assert (records["cannot_be_exported"].reason or "").startswith("torch.onnx.export: ")


def test_a_users_own_models_folder_is_the_one_its_factory_sees(tmp_path, monkeypatch):
    package = tmp_path / "models"
    package.mkdir()
    (package / "__init__.py").write_text("WHOSE = 'the user'\n")
    (package / "mine.py").write_text(
        "import models, torch\nassert models.WHOSE == 'the user'\n"
        "def make(channels):\n    return torch.nn.Linear(channels, channels)\n"
    )
    monkeypatch.chdir(tmp_path)
    source = Source("models.mine:make", {}, ("channels",), "mixer", user=True)
    planned = expand([Axes(models=("models.mine:make",), channels=(32,))], lambda _: source, ["cpu"])
    records, _ = run_all(planned, tmp_path)
    assert [record.status for record in records.values()] == ["ok"]


def test_a_reference_that_is_not_finite_is_inaccurate_and_the_sweep_goes_on(tmp_path):
    records, _ = run_all(plan("overflows", "good"), tmp_path)
    assert (records["overflows"].status, records["good"].status) == ("inaccurate", "ok")
    assert "reference itself" in (records["overflows"].reason or "")


def test_compile_that_captures_nothing_is_not_compile(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")  # inherited from a user's shell: dropped
    records, _ = run_all(plan("good", "not_compiled", lowerings=("compile",)), tmp_path)
    assert records["good"].status == "ok"
    assert records["not_compiled"].status == "unsupported"
    assert "captured no graph" in (records["not_compiled"].reason or "")


def test_a_forced_backend_of_attention_is_the_one_that_runs(tmp_path):
    records, _ = run_all(plan("attends", lowerings=("eager:sdpa=math", "eager:sdpa=cudnn")), tmp_path)
    by_lowering = {record.case.lowering: record for record in run_folder.read_records(tmp_path)}
    assert records["attends"].case.model == "attends"
    assert by_lowering["eager:sdpa=math"].status == "ok"
    proof: Any = by_lowering["eager:sdpa=math"].proof
    assert {name: proof[name] for name in ("sdpa", "formulation", "recompiles")} == {
        "sdpa": "math", "formulation": [], "recompiles": 0,
    }  # fmt: skip
    assert proof["ran"]["attention"] == ["products and softmax"]
    assert by_lowering["eager:sdpa=cudnn"].status == "unsupported"


def test_a_cache_that_others_can_write_is_refused(tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch").chmod(0o777)
    with pytest.raises(UsageError, match="others own or can write"):
        run_all(plan("good"), tmp_path)


@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("bfloat16", 2)])
def test_weights_are_counted_in_the_dtype_they_run_in(tmp_path, dtype, size):
    records, _ = run_all(plan("good", dtypes=(dtype,)), tmp_path)
    assert records["good"].memory.weights_bytes == size * records["good"].params


def test_the_anchor_is_measured_like_any_case(tmp_path):
    from mixprof.plan.sources import ANCHOR

    case = Case("anchor_v1", "eager", "cpu", "float32", "channels_last", "hot", 1, (56, 56), None, None)
    records, _ = run_all([Planned(case, ANCHOR)], tmp_path)
    assert records["anchor_v1"].status == "ok"
    assert records["anchor_v1"].macs == 56 * 56 * (96 * 96 + 96 * 49)


def test_a_server_ends_with_its_jobs_and_their_children(tmp_path):
    (case,) = [entry.case for entry in plan("hangs")]
    with Server(tmp_path, ("torch",), 1, "pinned") as server:
        request = {"source": source_request(toy("hangs")), "case": case.to_json(), "reference": str(tmp_path / "r.pt")}
        values = server.run("prepare", 2.0, **request).values
        assert values["status"] == "timeout"
        child = server._process.pid
    deadline = time.monotonic() + 5
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()


def test_a_launch_line_is_json_without_special_numbers():
    launch = Launch("ok", host_ms=Samples((1.0,), 1))
    assert json.loads(json.dumps(launch.to_json(), allow_nan=False))["host_ms"]["samples"] == [1.0]


def test_a_paused_job_has_no_thread_that_runs_until_it_goes_on(tmp_path):
    """While a resident process waits for its turn, its threads must not spin beside the other side's."""
    (entry,) = plan("hangs")
    with Server(tmp_path, ("torch",), 1, "pinned") as server:
        request = {
            "source": source_request(entry.source),
            "case": entry.case.to_json(),
            "reference": str(tmp_path / "r"),
        }
        running = server.begin("prepare", **request)
        pid = server._pid
        assert pid is not None

        def states():
            return {path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")}

        def wait_until(holds):
            until = time.monotonic() + 20
            while not holds() and time.monotonic() < until:
                time.sleep(0.01)
            assert holds()

        wait_until(lambda: os.getpgid(pid) == pid)  # a group of its own
        server.pause()
        wait_until(lambda: states() == {"T"})
        server.resume()
        wait_until(lambda: "T" not in states())
        server.pause()  # and is ended while it is stopped
        assert server.finish(running, 0.5).values["status"] == "timeout"
