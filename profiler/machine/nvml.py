"""What NVML tells of a GPU: clocks, throttle reasons, power, memory, processes, and what decides whether two results
compare. Never run on a GPU yet.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mixprof.data.messages import GpuProcess
from mixprof.machine.cuda_driver import device_uuid

# Clock event reasons that make samples worthless, by their bits.
THROTTLES = {
    0x08: "hardware slowdown",
    0x10: "sync boost",
    0x20: "thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
POWER_CAP = 0x04  # not among them: a hungrier candidate is really slower
POWER_INSTANT = 186  # a field's number
MOST_THROTTLED = 0.20  # share of readings; beyond it a launch is `throttled`
CLOCK_DRIFT = 0.02  # of the SM clock, in the steady state
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)  # of the SM clock, in a record
JOB = "MIXPROF_JOB"  # variable: the process that started the servers, whose descendants are no strangers on a GPU


@dataclass(frozen=True)
class Reading:
    """One look at a GPU. What it would not tell is None."""

    sm_clock_mhz: int | None
    throttled: tuple[str, ...] | None  # by the hardware, or for its temperature
    power_w: float | None  # at this instant
    temperature_c: int | None
    used_bytes: int | None  # by all processes on the device
    process_bytes: int | None  # by this process alone, its CUDA context included
    power_capped: bool | None = None  # by the driver, to the limit that is set
    average_power_w: float | None = None  # the usual reading: over a second, on Ampere and newer but GA100
    energy_j: float | None = None  # a counter
    at_s: float | None = None  # of a clock
    foreign: tuple[int, ...] | None = None  # processes of others that compute on the device


def reader(index: int) -> Callable[[], Reading] | None:
    """A function that reads CUDA device `index`; None where NVML is not installed or finds no driver."""
    opened = _handle(index)
    if opened is None:
        return None
    nvml, handle = opened

    def read() -> Reading:
        bits = _ask(nvml, _EVENTS, handle)
        milliwatts = _ask(nvml, "nvmlDeviceGetPowerUsage", handle)
        memory = _ask(nvml, "nvmlDeviceGetMemoryInfo", handle)
        running = _processes(nvml, handle)
        return Reading(
            sm_clock_mhz=_ask(nvml, "nvmlDeviceGetClockInfo", handle, nvml.NVML_CLOCK_SM),
            throttled=None if bits is None else throttles(bits),
            power_w=_instant_w(nvml, handle),
            temperature_c=_ask(nvml, "nvmlDeviceGetTemperature", handle, nvml.NVML_TEMPERATURE_GPU),
            used_bytes=None if memory is None else memory.used,
            process_bytes=own_bytes(running, os.getpid()),
            power_capped=None if bits is None else bool(bits & POWER_CAP),
            average_power_w=None if milliwatts is None else milliwatts / 1000,
            energy_j=_energy_j(nvml, handle),
            at_s=time.perf_counter(),
            foreign=None if own_bytes(running, os.getpid()) is None else _pids(foreign_of(running)),
        )

    return read


def energy_counter(index: int) -> Callable[[], float] | None:
    """What reads the joules of CUDA device `index` since its driver was loaded; None where it does not tell."""
    opened = _handle(index)
    if opened is None or _energy_j(*opened) is None:
        return None
    nvml, handle = opened
    return lambda: float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000)


def slowdown_c(index: int) -> int | None:
    """The degrees at which CUDA device `index` slows itself down; None where it does not tell."""
    opened = _handle(index)
    if opened is None:
        return None
    nvml, handle = opened
    degrees = _ask(nvml, "nvmlDeviceGetTemperatureThreshold", handle, nvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN)
    return None if degrees is None else int(degrees)


def foreign(index: int) -> tuple[GpuProcess, ...] | None:
    """Processes that compute on CUDA device `index` and are none of this job's; None where NVML does not tell.

    Ask before this process has a CUDA context: in a container its own may be listed under another number.
    """
    opened = _handle(index)
    running = None if opened is None else _processes(*opened)
    return None if running is None else foreign_of(running)


def foreign_of(running: Iterable[GpuProcess] | None) -> tuple[GpuProcess, ...]:
    """Those of the processes that no process of this job has started."""
    root = int(os.environ.get(JOB, os.getpid()))
    return tuple(process for process in running or () if root not in _ancestry(process.pid))


def _pids(processes: Iterable[GpuProcess]) -> tuple[int, ...]:
    return tuple(process.pid for process in processes)


def _ancestry(pid: int) -> list[int]:
    """A process and those it descends from, as far as this kernel shows them."""
    line = [pid]
    while line[-1] > 1:
        try:
            line.append(int(Path(f"/proc/{line[-1]}/stat").read_text().rpartition(")")[2].split()[1]))
        except OSError:
            break
    return line


def _handle(index: int) -> tuple[Any, Any] | None:
    """NVML and its handle of a CUDA device. By identifier: NVML does not know CUDA_VISIBLE_DEVICES' numbers."""
    try:
        import pynvml
    except ImportError:
        return None
    uuid = device_uuid(index)  # not asked of torch, which would initialise its CUDA beside an engine
    try:
        pynvml.nvmlInit()
        return None if uuid is None else (pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid))
    except (pynvml.NVMLError, AttributeError):
        return None


def trouble() -> str | None:
    """Why nothing can be read of any GPU, and what to do; None where NVML starts."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except ImportError:
        return "pynvml is not installed: pip install 'mixprof[cuda]'"
    except pynvml.NVMLError as error:
        return f"NVML does not start: {error}; nvidia-smi must work here"
    return None


# Names of one function, newest first: drivers and packages of other ages have another one.
_EVENTS = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
_PROCESSES = tuple(f"nvmlDeviceGetComputeRunningProcesses{version}" for version in ("_v3", "_v2", ""))


def _ask(nvml: Any, functions: str | tuple[str, ...], *arguments: Any) -> Any:
    """What a function of NVML returns; None where it will not tell: a container, MIG or Jetson may hide any."""
    for function in (functions,) if isinstance(functions, str) else functions:
        try:
            return getattr(nvml, function)(*arguments)
        except (nvml.NVMLError, AttributeError):
            continue
    return None


def _instant_w(nvml: Any, handle: Any) -> float | None:
    """Watts at this instant; None from a driver that only has the average of the last second."""
    fields = _ask(nvml, "nvmlDeviceGetFieldValues", handle, [POWER_INSTANT])
    return fields[0].value.uiVal / 1000 if fields and fields[0].nvmlReturn == nvml.NVML_SUCCESS else None


def _energy_j(nvml: Any, handle: Any) -> float | None:
    millijoules = _ask(nvml, "nvmlDeviceGetTotalEnergyConsumption", handle)
    return None if millijoules is None else millijoules / 1000


def _processes(nvml: Any, handle: Any) -> tuple[GpuProcess, ...] | None:
    """Those that compute on a GPU; None where NVML does not tell."""
    running = _ask(nvml, _PROCESSES, handle)
    return None if running is None else tuple(GpuProcess(each.pid, each.usedGpuMemory) for each in running)


def own_bytes(processes: Iterable[GpuProcess] | None, pid: int) -> int | None:
    """The memory of process `pid` among those on a GPU; None where a container hides it."""
    return next((process.used_bytes for process in processes or () if process.pid == pid), None)


def identity(index: int) -> dict[str, object]:
    """What of a GPU decides whether two results compare, "unknown" where it cannot tell.

    power limit in watts; ecc and mig on or off; driver branch; whether application clocks are set to other than
    their default. NVML has no way to ask for locked clocks.
    """
    opened = _handle(index)
    if opened is None:
        return dict.fromkeys(("power_limit_w", "ecc", "mig", "application_clocks", "driver_branch"), "unknown")
    nvml, handle = opened
    milliwatts = _ask(nvml, "nvmlDeviceGetEnforcedPowerLimit", handle)
    ecc, mig = _ask(nvml, "nvmlDeviceGetEccMode", handle), _ask(nvml, "nvmlDeviceGetMigMode", handle)
    clocks = [
        _ask(nvml, f"nvmlDeviceGet{kind}ApplicationsClock", handle, nvml.NVML_CLOCK_GRAPHICS)
        for kind in ("", "Default")
    ]
    driver = _ask(nvml, "nvmlSystemGetDriverVersion")
    return {
        "power_limit_w": "unknown" if milliwatts is None else milliwatts / 1000,
        "ecc": "unknown" if ecc is None else bool(ecc[0]),
        "mig": "unknown" if mig is None else bool(mig[0]),
        "application_clocks": "unknown" if None in clocks else "default" if len(set(clocks)) == 1 else clocks[0],
        "driver_branch": "unknown" if driver is None else str(driver).split(".")[0],
    }


def throttles(bits: int) -> tuple[str, ...]:
    """The reasons in a mask of NVML's clock event reasons that make samples worthless."""
    return tuple(words for bit, words in THROTTLES.items() if bits & bit)


def verdict(readings: list[Reading]) -> str | None:
    """Why a launch was throttled; None when it was not, or nobody could tell."""
    known = [reading for reading in readings if reading.throttled is not None]
    throttled = [reading for reading in known if reading.throttled]
    if not known or len(throttled) / len(known) <= MOST_THROTTLED:
        return None
    reasons = sorted({reason for reading in throttled for reason in reading.throttled or ()})
    return f"throttled at {len(throttled)} of {len(known)} readings: {', '.join(reasons)}"


def capped_share(readings: list[Reading]) -> float | None:
    """The share of readings under a software power cap; None where nobody could tell."""
    known = [reading.power_capped for reading in readings if reading.power_capped is not None]
    return sum(known) / len(known) if known else None


def drifted(readings: list[Reading]) -> str | None:
    """Why the SM clock was not steady over the second half of a launch; None when it was, or nobody could tell.

    Under a software power cap the clock moves as the work asks for, and that is a result: it is recorded.
    """
    late = readings[len(readings) // 2 :]
    clocks = [reading.sm_clock_mhz for reading in late if reading.sm_clock_mhz]
    if capped_share(late) or not clocks or max(clocks) <= min(clocks) * (1 + CLOCK_DRIFT):
        return None
    return f"the SM clock moved between {min(clocks)} and {max(clocks)} MHz, expected within {CLOCK_DRIFT:.0%}"


def summary(readings: list[Reading]) -> dict[str, object]:
    """What a record keeps of a launch's readings; None for what no reading tells.

    energy_j and energy_s: from the first reading to the last.
    """

    def known(name: str) -> list[Any]:
        return [value for reading in readings if (value := getattr(reading, name)) is not None]

    clocks, energy, at = known("sm_clock_mhz"), known("energy_j"), known("at_s")
    strangers = {pid for pids in known("foreign") for pid in pids}
    spans = len(energy) == len(at) > 1
    return {
        "sm_clock_mhz": [min(clocks), max(clocks)] if clocks else None,
        "sm_clock_quantiles_mhz": np.quantile(clocks, QUANTILES).round().tolist() if clocks else None,
        "power_capped_share": capped_share(readings),
        "power_w": max(known("power_w"), default=None),
        "average_power_w": max(known("average_power_w"), default=None),
        "energy_j": energy[-1] - energy[0] if spans else None,
        "energy_s": at[-1] - at[0] if spans else None,
        "temperature_c": max(known("temperature_c"), default=None),
        "device_used_bytes": max(known("used_bytes"), default=None),
        "process_used_bytes": max(known("process_bytes"), default=None),
        "foreign_processes": len(strangers) if known("foreign") else None,
        "throttle_readings": len(readings),
    }
