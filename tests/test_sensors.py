"""Clocks, energy and CPU load: what the arithmetic says, and what a machine without the sensors says."""

import importlib.util
import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from mixprof.data.errors import Unavailable
from mixprof.data.messages import GpuProcess
from mixprof.machine import cpu_contention
from mixprof.machine import nvml as clocks
from mixprof.machine.devices.cpu import Cpu
from mixprof.machine.nvml import Reading


def reading(throttled=(), clock=1500):
    return Reading(clock, throttled, 200.0, 50, 1 << 30, 1 << 28)


def test_masks_are_read_by_nvmls_own_constants():
    nvml = pytest.importorskip("pynvml")
    assert clocks.throttles(nvml.nvmlClocksEventReasonNone) == ()
    assert clocks.throttles(nvml.nvmlClocksEventReasonSwPowerCap | nvml.nvmlClocksEventReasonGpuIdle) == ()
    assert clocks.throttles(nvml.nvmlClocksEventReasonHwThermalSlowdown) == ("hardware thermal slowdown",)
    both = nvml.nvmlClocksEventReasonSyncBoost | nvml.nvmlClocksEventReasonHwPowerBrakeSlowdown
    assert clocks.throttles(both) == ("sync boost", "power brake")
    assert nvml.nvmlClocksEventReasonSwPowerCap == clocks.POWER_CAP
    assert nvml.NVML_FI_DEV_POWER_INSTANT == clocks.POWER_INSTANT


def test_a_launch_is_throttled_beyond_a_fifth_of_its_readings():
    held = reading(("power brake",))
    assert clocks.verdict([reading()] * 8 + [held] * 2) is None
    assert clocks.verdict([reading()] * 7 + [held] * 3) == "throttled at 3 of 10 readings: power brake"
    assert clocks.verdict([]) is None
    assert clocks.verdict([reading(throttled=None)] * 5) is None


def test_a_software_power_cap_is_recorded_and_rejects_nothing():
    capped = [replace(reading(clock=mhz), power_capped=mhz < 1500) for mhz in (1500, 1200, 1300, 1400, 1500)]
    assert clocks.verdict(capped) is None
    assert clocks.drifted(capped) is None
    kept = clocks.summary(capped)
    assert kept["power_capped_share"] == pytest.approx(3 / 5)
    assert kept["sm_clock_mhz"] == [1200, 1500]
    assert kept["sm_clock_quantiles_mhz"] == [1220, 1300, 1400, 1500, 1500]  # linear between order statistics
    assert clocks.drifted([replace(each, power_capped=False) for each in capped]) is not None
    assert clocks.summary([reading()])["power_capped_share"] is None


def test_a_record_keeps_the_energy_between_the_first_reading_and_the_last():
    seen = [replace(reading(), energy_j=1000.0 + each, at_s=50.0 + each / 300) for each in (0, 100, 450)]
    kept = clocks.summary(seen)
    assert (kept["energy_j"], kept["energy_s"]) == (450, pytest.approx(1.5))  # 300 W
    assert clocks.summary(seen[:1])["energy_j"] is None


def test_a_process_finds_its_own_memory_among_all():
    running = (GpuProcess(3, 10), GpuProcess(7, 20), GpuProcess(9))
    assert clocks.own_bytes(running, 7) == 20
    assert clocks.own_bytes(running[:1], 7) is None
    assert clocks.own_bytes(running, 9) is None
    assert clocks.own_bytes(None, 7) is None


def test_children_of_this_job_are_no_strangers_on_a_gpu(monkeypatch):
    child = subprocess.Popen(["sleep", "60"])
    try:
        running = [GpuProcess(pid) for pid in (os.getpid(), child.pid, os.getppid(), 1 << 30)]
        assert [each.pid for each in clocks.foreign_of(running)] == [os.getppid(), 1 << 30]
        monkeypatch.setenv(clocks.JOB, str(os.getppid()))  # of a worker: the command that started its server
        assert [each.pid for each in clocks.foreign_of(running)] == [1 << 30]
    finally:
        child.kill()
        child.wait()


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
