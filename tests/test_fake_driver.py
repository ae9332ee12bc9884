"""What our code reads of a GPU: the real ctypes, pynvml and cuda.bindings over a fake driver."""

import importlib.util
import subprocess

import pytest

from fake_driver import SOURCES, UUID, ask, libraries

DRIVER = "from mixprof.machine import cuda_driver as d"
NVML = "from mixprof.machine import nvml; from dataclasses import asdict"
needs_pynvml = pytest.mark.skipif(importlib.util.find_spec("pynvml") is None, reason="pip install 'mixprof[cuda]'")


def has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


needs_bindings = pytest.mark.skipif(not has("cuda.bindings.driver"), reason="pip install 'mixprof[cuda]'")


def test_the_fakes_need_no_header_of_nvidia():
    includes = {line for path in SOURCES.glob("*.c") for line in path.read_text().splitlines() if "#include" in line}
    assert all("<" in line and "cuda" not in line and "nvml" not in line for line in includes)


def test_the_driver_tells_its_devices():
    facts = "answer = [d.device_count(), d.device_name(1), d.device_uuid(1), d.compute_capability(1), d.version()]"
    seen = ask(f"{DRIVER}; {facts}", cuda_devices=2, cuda_capability=86)
    assert seen == [2, "Fake GPU 1", UUID.format(1), [8, 6], "13.0"]


def test_a_slice_of_mig_is_known_by_its_gpu():
    """Clocks and reasons are the whole GPU's: by a slice's identifier NVML would find none."""
    assert ask(f"{DRIVER}; answer = d.device_uuid(0)", cuda_mig=1) == UUID.format(0)


@needs_pynvml
def test_a_reading_is_what_nvml_says():
    seen = ask(
        f"{NVML}; answer = asdict(nvml.reader(0)())",
        nvml_clocks=1410, nvml_temperature=61, nvml_processes="7:1024",
    )  # fmt: skip
    assert (seen["sm_clock_mhz"], seen["temperature_c"], seen["used_bytes"]) == (1410, 61, 1 << 28)
    assert seen["throttled"] == []


@needs_pynvml
def test_a_process_finds_its_own_memory():
    code = f"{NVML}; import os; os.environ['FAKE_NVML_PROCESSES'] = f'7:1024,{{os.getpid()}}:4096'"
    assert ask(f"{code}; answer = nvml.reader(0)().process_bytes") == 4096


@needs_pynvml
def test_a_sensor_that_is_refused_is_unknown_not_guessed():
    seen = ask(f"{NVML}; answer = [asdict(nvml.reader(0)()), nvml.identity(0)]", nvml_hides=1)
    reading, identity = seen
    assert set(reading.values()) == {None}
    assert {value for name, value in identity.items() if name != "driver_branch"} == {"unknown"}
    assert identity["driver_branch"] == "580"


@needs_pynvml
@pytest.mark.parametrize("code", [9, 18])
def test_an_nvml_that_does_not_start_is_no_reader(code):
    assert ask(f"{NVML}; answer = nvml.reader(0)", nvml_init=code) is None


@needs_pynvml
def test_each_gpu_has_settings_of_its_own():
    watts = ask(
        f"{NVML}; answer = [nvml.identity(i)['power_limit_w'] for i in (0, 1)]",
        cuda_devices=2, nvml_devices=2, nvml_limits="700000,350000",
    )  # fmt: skip
    assert watts == [700, 350]


@needs_bindings
def test_a_graph_replays_the_work_it_was_given_and_frees_what_it_took():
    code = """
import ctypes
import numpy as np
from cuda.bindings import driver as cuda
from mixprof.machine.cuda_graph import Captured
cuda.cuInit(0)
cuda.cuCtxPushCurrent(cuda.cuDevicePrimaryCtxRetain(0)[1])
stream, memory = cuda.cuStreamCreate(0)[1], cuda.cuMemAlloc(64)[1]
begin, end = (cuda.cuEventCreate(0)[1] for _ in range(2))
cuda.cuMemsetD8(memory, 1, 64)
def enqueue():
    cuda.cuMemsetD8Async(memory, 7, 64, stream)
    for _ in range(5):
        cuda.cuLaunchKernel(0, 1, 1, 1, 1, 1, 1, 0, stream, 0, 0)
content = np.zeros(64, np.uint8)
def read():
    cuda.cuMemcpyDtoH(content.ctypes.data, memory, 64)
    return sorted(set(content.tolist()))
captured = Captured(int(stream), enqueue)
answer = [read()]
cuda.cuEventRecord(begin, stream)
captured.launch()
cuda.cuEventRecord(end, stream)
answer += [read(), cuda.cuEventElapsedTime(begin, end)[1]]
captured.destroy()
cuda.cuStreamDestroy(stream), cuda.cuMemFree(memory), cuda.cuEventDestroy(begin), cuda.cuEventDestroy(end)
answer.append(ctypes.CDLL("libcuda.so.1").fake_live())
"""
    captured, launched, ms, live = ask(code)
    assert captured == [1]  # capturing runs nothing
    assert launched == [7]
    assert ms == pytest.approx(5 * 0.010 + 0.001, rel=1e-3)
    assert live == 0


@needs_bindings
def test_a_graph_names_the_call_that_failed():
    code = """
from cuda.bindings import driver as cuda
from mixprof.machine.cuda_graph import Captured
cuda.cuInit(0)
try:
    Captured(0, lambda: None)
except RuntimeError as error:
    answer = str(error)
"""
    assert ask(code) == "CUDA graph: CUDA_ERROR_INVALID_CONTEXT"


def test_an_old_nvml_has_no_third_version():
    command = ["nm", "-D", "--defined-only", str(libraries(old=True) / "libnvidia-ml.so.1")]
    names = subprocess.run(command, capture_output=True, text=True)
    if names.returncode:
        pytest.skip(f"nm: {names.stderr}")
    assert "nvmlDeviceGetComputeRunningProcesses_v2" in names.stdout
    assert "_v3" not in names.stdout
