"""What our code reads of a GPU: the real ctypes, pynvml and cuda.bindings over a fake driver."""

import importlib.util
import subprocess

import pytest

from fake_driver import SOURCES, UUID, ask, libraries, run
from mixprof.data.testbed import of_devices
from mixprof.data.testbed import testbed_key as key_of

DRIVER = "from mixprof.machine import cuda_driver as d"
NVML = "from mixprof.machine import nvml; from dataclasses import asdict"
needs_pynvml = pytest.mark.skipif(importlib.util.find_spec("pynvml") is None, reason="pip install 'mixprof[cuda]'")


def has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


needs_pycuda = pytest.mark.skipif(not has("pycuda"), reason="pycuda is not installed: it needs NVIDIA's headers")
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
        nvml_clocks=1410, nvml_temperature=61, nvml_power=412000, nvml_energy=5000, nvml_reasons=0x4,
    )  # fmt: skip
    assert (seen["sm_clock_mhz"], seen["temperature_c"], seen["used_bytes"]) == (1410, 61, 1 << 28)
    assert (seen["power_w"], seen["average_power_w"], seen["energy_j"]) == (412.0, 250.0, 5.0)
    assert (seen["throttled"], seen["power_capped"]) == ([], True)


@needs_pynvml
def test_a_hungry_kernel_slows_the_clock_and_is_not_thrown_away():
    """A software power cap, then the hardware's brake: the one is recorded, the other rejects."""
    code = f"{NVML}; read = nvml.reader(0); seen = [read() for _ in range(4)]"
    answer = "answer = [nvml.verdict(seen), nvml.drifted(seen), nvml.summary(seen)]"
    for reasons, rejected in (("0x4", None), ("0x84", "throttled at 4 of 4 readings: power brake")):
        verdict, drifted, kept = ask(f"{code}; {answer}", nvml_reasons=reasons, nvml_clocks="1980,1700,1500,1600")
        assert (verdict, drifted) == (rejected, None)
        assert (kept["power_capped_share"], kept["sm_clock_mhz"]) == (1.0, [1500, 1980])


@needs_pynvml
def test_an_old_driver_has_older_functions_and_no_instantaneous_power():
    code = f"{NVML}; import os; os.environ['FAKE_NVML_PROCESSES'] = f'7:1024,{{os.getpid()}}:4096'"
    seen = ask(f"{code}; answer = asdict(nvml.reader(0)())", old=True, nvml_reasons=0x8)
    assert (seen["power_w"], seen["average_power_w"]) == (None, 250.0)
    assert seen["throttled"] == ["hardware slowdown"]
    assert (seen["process_bytes"], seen["foreign"]) == (4096, [7])


@needs_pynvml
def test_the_sensors_of_a_whole_gpu_are_unknown_on_a_slice_of_it():
    seen = ask(f"{NVML}; answer = [asdict(nvml.reader(0)()), nvml.identity(0)]", cuda_mig=1, nvml_mig=1)
    reading, identity = seen
    assert {reading[name] for name in ("throttled", "power_w", "average_power_w", "energy_j", "power_capped")} == {None}
    assert reading["sm_clock_mhz"] == 1980
    assert (identity["mig"], identity["power_limit_w"]) == (True, "unknown")


@needs_pynvml
def test_a_container_that_shows_others_numbers_tells_of_no_stranger():
    code = f"{NVML}; r = nvml.reader(0)(); answer = [r.foreign, [p.pid for p in nvml.foreign(0)]]"
    assert ask(code, nvml_processes="4000001:1024") == [None, [4000001]]  # the second asks before it has a context
    assert ask(code) == [None, []]


@needs_pynvml
def test_a_counter_of_energy_counts_joules():
    code = f"{NVML}; count = nvml.energy_counter(0); answer = [count(), count()]"
    assert ask(code, nvml_energy="1000000,1000000,1250000") == [1000.0, 1250.0]
    assert ask(f"{NVML}; answer = nvml.energy_counter(0)", nvml_hides=1) is None


@needs_pynvml
def test_energy_of_a_gpu_is_the_counters_difference_over_the_forwards():
    code = """
from mixprof.data.errors import Unavailable
from mixprof.machine.devices.cpu import Cpu
from mixprof.metrics import energy
energy.WINDOW_S = 0.05
device, ran = Cpu(), []
device.name = "cuda:0"
try:
    measured = energy.joules(lambda: ran.append(1), device, 4)
    answer = [measured.joules_per_image * 4 * len(ran), measured.source]
except Unavailable as error:
    answer = str(error)
"""
    joules, source = ask(code, nvml_energy="1000000,1000000,1250000")
    assert (joules, source) == (pytest.approx(250), "nvml")
    assert ask(code, nvml_hides=1) == "energy: this GPU has no counter that NVML tells of"


def test_a_device_is_current_while_an_engine_is_built_and_let_go_of():
    code = f"""
import ctypes
{DRIVER}
which = ctypes.CDLL("libcuda.so.1").fake_current_device
answer = [which()]
with d.current(1):
    answer.append(which())
    with d.current(0):
        answer.append(which())
    answer.append(which())
answer.append(which())
"""
    assert ask(code, cuda_devices=2) == [-1, 1, 0, 1, -1]


@needs_pynvml
def test_a_process_finds_its_own_memory():
    code = f"{NVML}; import os; os.environ['FAKE_NVML_PROCESSES'] = f'7:1024,{{os.getpid()}}:4096'"
    assert ask(f"{code}; answer = nvml.reader(0)().process_bytes") == 4096


@needs_pynvml
def test_a_sensor_that_is_refused_is_unknown_not_guessed():
    seen = ask(f"{NVML}; answer = [asdict(nvml.reader(0)()), nvml.identity(0)]", nvml_hides=1)
    reading, identity = seen
    assert {value for name, value in reading.items() if name != "at_s"} == {None}
    assert {value for name, value in identity.items() if name != "driver_branch"} == {"unknown"}
    assert identity["driver_branch"] == "580"


@needs_pynvml
@pytest.mark.parametrize("code", [9, 18])
def test_an_nvml_that_does_not_start_is_no_reader_and_says_why(code):
    reader, why = ask(f"{NVML}; answer = [nvml.reader(0), nvml.trouble()]", nvml_init=code)
    assert reader is None
    assert why.startswith("NVML does not start: ")
    assert ask(f"{NVML}; answer = nvml.trouble()") is None


@needs_pynvml
def test_each_gpu_has_settings_of_its_own():
    watts = ask(
        f"{NVML}; answer = [nvml.identity(i)['power_limit_w'] for i in (0, 1)]",
        cuda_devices=2, nvml_devices=2, nvml_limits="700000,350000",
    )  # fmt: skip
    assert watts == [700, 350]


def test_a_testbed_leaves_a_neighbours_settings_out():
    both = {"cpu": "C", "gpus": ["A", "B"], "gpu_settings": [{"power_limit_w": 700}, {"power_limit_w": 350}]}
    other = {**both, "gpu_settings": [{"power_limit_w": 400}, {"power_limit_w": 350}]}
    assert key_of(of_devices(both, ["cuda:1"])) == key_of(of_devices(other, ["cuda:1"]))
    assert key_of(of_devices(both, ["cuda:0"])) != key_of(of_devices(other, ["cuda:0"]))
    assert of_devices(both, ["cuda:1"])["gpus"] == [None, "B"]
    assert of_devices(both, ["cuda:0"])["gpus"] == ["A"]
    assert of_devices(both, ["cpu"]) == {"cpu": "C"}
    assert of_devices(both, ["cpu", "cuda:0", "cuda:1"]) == both


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


@needs_pycuda
def test_pycuda_serves_an_engines_device_as_well_and_leaves_nothing_behind():
    code = """
import ctypes
import numpy as np
import pycuda.driver
from mixprof.machine.devices import driver
from mixprof.machine.devices.engine import EngineDevice
driver.enter = lambda index: driver.Pycuda(pycuda.driver, index)
device, fake = EngineDevice(1), ctypes.CDLL("libcuda.so.1")
def read():
    return sorted(set(device.download(memory, 100).tolist()))
memory = device.allocate(100)
device.upload(memory, np.full(100, 3, np.uint8))
answer = [read(), fake.fake_current_device(), fake.fake_retained(1)]
begin, flush = device.event(), device.flusher()
filled = device.event()
flush(), device.spin(0.5)
end = device.event()
device.synchronize()
answer += [device.is_done(end), round(device.elapsed_ms(filled, end), 6)]
device.fill(memory, 255, 100)
answer.append(read())
del memory, flush, begin, filled, end
device.close()
answer += [fake.fake_current_device(), fake.fake_live()]
del device
answer.append(fake.fake_retained(1))
"""
    assert ask(code, cuda_devices=2) == [[3], 1, 1, True, 0.02, [255], -1, 0, 0]


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


@pytest.mark.slow
def test_ab_refuses_a_gpu_that_others_compute_on_unless_it_is_allowed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["-m", "mixprof", "ab", "--models", "depthwise_conv", "--devices", "cuda:0", "--budget", "1"]
    command += ["--base-set", "lowering=eager", "--head-set", "lowering=compile"]
    others = f"4000001:{3 << 30}"
    done = run(*command, nvml_processes=others)
    words = "processes of others compute on cuda:0 (process 4000001 with 3072 MiB): end them, or add --allow-shared-gpu"
    assert (done.returncode, done.stderr.splitlines()[-1]) == (4, f"mixprof: {words}")
    done = run(*command, "--allow-shared-gpu", nvml_processes=others)
    assert "measured beside processes of others on cuda:0 (process 4000001 with 3072 MiB)" in done.stdout
