"""Clocks, energy and CPU load: what the arithmetic says, and what a machine without the sensors says."""

import importlib.util
import subprocess
import sys
import time

import pytest

from mixprof.data.errors import Unavailable
from mixprof.machine import cpu_contention
from mixprof.machine import nvml as clocks
from mixprof.machine.devices.cpu import Cpu
from mixprof.machine.nvml import Reading


def reading(throttled=(), clock=1500):
    return Reading(clock, throttled, 200.0, 50, 1 << 30, 1 << 28)


def test_masks_are_read_by_nvmls_own_constants():
    nvml = pytest.importorskip("pynvml")
    assert clocks.throttles(nvml.nvmlClocksEventReasonNone, nvml) == ()
    assert clocks.throttles(nvml.nvmlClocksEventReasonSwPowerCap | nvml.nvmlClocksEventReasonGpuIdle, nvml) == ()
    assert clocks.throttles(nvml.nvmlClocksEventReasonHwThermalSlowdown, nvml) == ("hardware thermal slowdown",)
    both = nvml.nvmlClocksEventReasonSyncBoost | nvml.nvmlClocksEventReasonHwPowerBrakeSlowdown
    assert clocks.throttles(both, nvml) == ("sync boost", "power brake")


def test_a_launch_is_throttled_beyond_a_fifth_of_its_readings():
    held = reading(("power brake",))
    assert clocks.verdict([reading()] * 8 + [held] * 2) is None
    assert clocks.verdict([reading()] * 7 + [held] * 3) == "throttled at 3 of 10 readings: power brake"
    assert clocks.verdict([]) is None
    assert clocks.verdict([reading(throttled=None)] * 5) is None


class Process:
    def __init__(self, pid, used):
        self.pid, self.usedGpuMemory = pid, used


def test_a_process_finds_its_own_memory_among_all():
    assert clocks.own_bytes([Process(3, 10), Process(7, 20)], 7) == 20
    assert clocks.own_bytes([Process(3, 10)], 7) is None
    assert clocks.own_bytes(None, 7) is None


def test_every_name_of_nvml_that_is_asked_for_exists():
    import ast
    from pathlib import Path

    nvml = pytest.importorskip("pynvml")
    tree = ast.parse(Path(clocks.__file__).read_text())
    asked = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
             and node.value.startswith(("nvmlDevice", "nvmlSystem")) and node.value != "nvmlDeviceGet"}  # fmt: skip
    assert len(asked) >= 9
    assert [name for name in asked if not hasattr(nvml, name)] == []
    assert hasattr(nvml, "nvmlDeviceGetApplicationsClock")
    assert hasattr(nvml, "nvmlDeviceGetDefaultApplicationsClock")


def test_without_a_driver_a_gpus_settings_are_unknown_not_guessed():
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    assert clocks.reader(0) is None
    assert set(clocks.identity(0).values()) == {"unknown"}


def test_the_clock_is_steady_within_two_percent_of_the_second_half():
    assert clocks.drifted([reading(clock=900)] * 5 + [reading(clock=1500), reading(clock=1529)] * 3) is None
    assert "between 1500 and 1531 MHz" in (clocks.drifted([reading()] * 3 + [reading(clock=1531)] * 2) or "")
    assert clocks.drifted([reading(clock=None)] * 4) is None


def test_a_machine_without_a_driver_has_no_reader():
    if subprocess.run(["sh", "-c", "command -v nvidia-smi"], capture_output=True).returncode == 0:
        pytest.skip("this machine has an NVIDIA driver")
    assert clocks.reader(0) is None


def test_energy_is_unavailable_with_the_reason():
    from mixprof.metrics import energy

    if importlib.util.find_spec("zeus") is not None:
        pytest.skip("zeus is installed here")
    with pytest.raises(Unavailable, match=r"energy: pip install 'mixprof\[energy\]'"):
        energy.joules(lambda: None, Cpu(), 1)


def test_the_lost_share_is_what_threads_waited_or_were_robbed_of():
    before = cpu_contention.Reading(0.0, 1.0, 0.5, 0.0, 10.0)
    after = cpu_contention.Reading(9.0, 4.0, 1.0, 0.5, 17.5)
    assert cpu_contention.lost_share(before, after) == pytest.approx(1.0 / 4.0)
    assert cpu_contention.others_cpus(before, after) == pytest.approx((7.5 - 3.0) / 9.0)
    assert cpu_contention.lost_share(before, before) == 0.0
    assert cpu_contention.lost_share(None, before) is None


def test_two_busy_processes_on_one_core_lose_about_half_each():
    before = cpu_contention.read()
    if before is None:
        pytest.skip("this kernel does not tell")
    import os

    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    rival = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.3)
        before = cpu_contention.read()
        end = time.process_time() + 0.5
        while time.process_time() < end:
            pass
        share = cpu_contention.lost_share(before, cpu_contention.read())
    finally:
        rival.kill()
        rival.wait()
        os.sched_setaffinity(0, cores)
    assert share is not None
    assert share > 0.25
