"""What torch does on a CUDA device. Skipped without one; `make gpu` runs it. Never run on a GPU yet."""

import math
from pathlib import Path

import pytest

from gpu_probes import ask
from mixprof.data import run_folder
from mixprof.data.case import Case
from mixprof.machine.cuda_driver import compute_capability, device_uuid
from mixprof.metrics.accuracy import TOLERANCES
from mixprof.plan.axes import Planned, Source, expand
from mixprof.plan.settings import DTYPES, Axes, Measure
from mixprof.plan.sources import ANCHOR
from mixprof.run.executors import local

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("gpu")]

NO_NVML = "pynvml is not installed: pip install 'mixprof[cuda]'"
RAN = ("ok", "unstable", "throttled")  # its output was right; whether its times hold is another question
MOST_FLOPS = 10e15  # a second, of any one GPU in half precision
ROUTES = ["eager", "eager:graph=on", "compile", "compile:reduce-overhead", "onnxruntime"]


class Silent:
    def begin(self, case, round):
        pass

    def end(self, case, launch):
        pass


def toy(name):
    return Source(f"toys:{name}", {}, ("channels",), "mixer", user=True)


@pytest.fixture
def run_toys(tmp_path, monkeypatch):
    """Real launches of toys on the device, as a sweep runs them."""
    monkeypatch.chdir(Path(__file__).parent)

    def run(*names, **axes):
        axes = {"resolutions": ((6, 5),), "channels": (32,), "devices": ("cuda:0",), **axes}
        planned = expand([Axes(models=names, **axes)], toy, ["cpu", "cuda:0"])
        local.execute(planned, tmp_path, Measure(quick=True, threads=1), Silent())
        return run_folder.read_records(tmp_path)

    return run


# Times


def test_a_products_time_is_what_its_flops_and_a_wall_clock_say():
    side = 8192
    found = ask("product", side=side, dtype="float16")
    assert found["gpu_ms"] == pytest.approx(found["wall_ms"], rel=0.15)
    assert 1e12 < 2 * side**3 / (found["gpu_ms"] / 1000) < MOST_FLOPS


def test_a_product_in_float32_is_no_faster_than_its_cores():
    nvml = pytest.importorskip("pynvml", reason=NO_NVML)
    side = 4096
    found = ask("product", side=side, dtype="float32")
    nvml.nvmlInit()
    handle = nvml.nvmlDeviceGetHandleByUUID(device_uuid(0))
    clock_hz = 1e6 * nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM)
    most = found["multiprocessors"] * 128 * 2 * clock_hz  # 128 cores a multiprocessor at most, a fused step is two
    assert 0.1 * most < 2 * side**3 / (found["gpu_ms"] / 1000) < 1.02 * most


def test_a_second_library_agrees_on_a_products_time():
    found = ask("timer", side=4096)
    assert found["ours_ms"] == pytest.approx(found["theirs_ms"], rel=0.15)


def test_work_goes_to_a_stream_of_its_own():
    assert ask("product", side=1024, dtype="float16")["stream"] != 0


def test_enqueueing_a_large_product_is_faster_than_running_it():
    found = ask("product", side=8192, dtype="float16")
    assert found["enqueue_ms"] < 0.5 * found["gpu_ms"] < found["host_ms"]


def test_queued_events_see_no_launch_overhead():
    found = ask("one_by_one", side=4096)
    queued, graphed = found["queued"]["gpu_ms"], found["graphed"]["gpu_ms"]
    assert queued <= 1.1 * found["idle_ms"]
    assert queued == pytest.approx(graphed, rel=0.2)  # a graph of one kernel has nothing to launch in between
    assert queued < found["queued"]["host_ms"]


def test_cold_is_slower_than_hot_where_memory_bounds():
    found = ask("modes")
    assert found["l2_bytes"] > 0
    assert found["cold"] > 1.03 * found["hot"]


# Numbers


def test_tf32_is_off_unless_it_is_asked_for():
    exact = ask("precision", dtype="float32")
    assert exact["product"] < 1e-5
    assert exact["convolution"] < 5e-5  # cuDNN may choose Winograd's algorithm, which rounds more; TF32's is 3e-4
    if compute_capability(0) < (8, 0):
        pytest.skip("float32 holds; this device has no TF32 to compare with")
    rounded = ask("precision", dtype="tf32")
    assert 1e-5 < rounded["product"] < TOLERANCES["tf32"]
    assert rounded["convolution"] < TOLERANCES["tf32"]  # allowed TF32, cuDNN may yet do without


def test_channels_last_is_kept():
    assert ask("layouts", layout="channels_last") == {"output": True, "weight": True}
    assert ask("layouts", layout="contiguous") == {"output": False, "weight": False}


def test_a_cuda_graph_computes_what_eager_does():
    found = ask("graphs")
    assert found["error"] < TOLERANCES["float16"]
    assert found["difference"] == 0
    assert found["between_replays"] == 0


def test_reduce_overhead_captures_while_it_builds_and_never_among_samples(tmp_path):
    found = ask("captures", folder=str(tmp_path))
    assert found["built"] > 0, f"{found['skipped']} graphs were skipped"
    assert (found["sampled"], found["skipped"], found["recompiles"]) == (0, 0, 0)
    assert found["error"] < TOLERANCES["float16"]
    assert found["memory"]["cuda_graph_pool_bytes"] > 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lowering", ROUTES)
def test_every_lowering_agrees_with_the_reference(run_toys, lowering, dtype):
    (record,) = run_toys("good", lowerings=(lowering,), dtypes=(dtype,))
    if record.status == "unavailable" or (lowering == "onnxruntime" and record.status == "unsupported"):
        pytest.skip(record.reason)
    assert record.status in RAN, record.reason
    assert record.relative_error is not None
    assert record.relative_error < TOLERANCES[dtype]
    (launch,) = record.launches
    for times in (launch.gpu_ms, launch.enqueue_ms, launch.host_ms):
        assert times is not None
        assert min(times.samples) > 0


def test_the_anchor_runs(tmp_path):
    case = Case("anchor_v1", "eager", "cuda:0", "float16", "channels_last", "hot", 1, (56, 56), None, None)
    local.execute([Planned(case, ANCHOR)], tmp_path, Measure(quick=True, threads=1), Silent())
    (record,) = run_folder.read_records(tmp_path)
    assert record.status in RAN, record.reason


# Memory


def test_the_allocators_peak_is_the_one_computed_by_hand():
    side = 1024
    size = 4 * side * side
    found = ask("allocator", side=side)
    assert found["peak"] == 2 * size  # x + 1 lives until (x + 1) * 2 is there
    kept = found["memory"]
    assert kept["cuda_allocated_bytes"] >= 3 * size  # with the input
    assert kept["cuda_reserved_bytes"] >= kept["cuda_allocated_bytes"]
    assert kept["cuda_graph_pool_bytes"] == 0
    assert found["process_peak"] > 0


def test_the_pool_of_a_cuda_graph_is_told_apart():
    kept = ask("graphs")["memory"]
    assert 0 < kept["cuda_graph_pool_bytes"] <= kept["cuda_reserved_bytes"]


def test_a_case_that_does_not_fit_is_oom_and_the_sweep_goes_on(run_toys):
    records = {record.case.model: record for record in run_toys("too_large_for_a_gpu", "good")}
    assert records["too_large_for_a_gpu"].status == "oom"
    assert "out of memory" in records["too_large_for_a_gpu"].reason
    assert records["good"].status in RAN


# Sensors


def test_nvml_reads_the_device_that_cuda_means():
    pytest.importorskip("pynvml", reason=NO_NVML)
    found = ask("sensors")
    assert found is not None
    ours, torchs = found["uuids"]
    assert ours == (torchs if torchs.startswith("GPU-") else f"GPU-{torchs}")
    before, after = found["before"], found["after"]
    assert after["sm_clock_mhz"] > 0
    assert 0 < after["temperature_c"] < 120
    assert after["throttled"] is not None
    assert after["used_bytes"] - before["used_bytes"] >= found["held"]
    assert after["process_bytes"] is None or after["process_bytes"] >= found["held"]
    assert set(found["identity"].values()) != {"unknown"}
    assert found["identity"]["driver_branch"] != "unknown"
    assert found["testbed"]["gpus"]
    assert all(math.isfinite(each) for each in (after["power_w"] or 0.0, after["temperature_c"]))
