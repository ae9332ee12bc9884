"""What NVML tells of a GPU: clocks, throttle reasons, memory, and what decides whether two results compare.

Never run on a GPU yet.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mixprof.machine.cuda_driver import device_uuid

# Reasons that make samples worthless. A power cap is not among them: a hungrier candidate is really slower.
THROTTLES = {
    "HwSlowdown": "hardware slowdown",
    "SyncBoost": "sync boost",
    "HwThermalSlowdown": "hardware thermal slowdown",
    "SwThermalSlowdown": "thermal slowdown",
    "HwPowerBrakeSlowdown": "power brake",
}
MOST_THROTTLED = 0.20  # share of readings; beyond it a launch is `throttled`
CLOCK_DRIFT = 0.02  # of the SM clock, in the steady state


@dataclass(frozen=True)
class Reading:
    """One look at a GPU. What it would not tell is None."""

    sm_clock_mhz: int | None
    throttled: tuple[str, ...] | None
    power_w: float | None
    temperature_c: int | None
    used_bytes: int | None  # by all processes on the device
    process_bytes: int | None  # by this process alone, its CUDA context included


def reader(index: int) -> Callable[[], Reading] | None:
    """A function that reads CUDA device `index`; None where NVML is not installed or finds no driver."""
    opened = _handle(index)
    if opened is None:
        return None
    nvml, handle = opened

    def read() -> Reading:
        bits = _ask(nvml, "nvmlDeviceGetCurrentClocksEventReasons", handle)
        milliwatts = _ask(nvml, "nvmlDeviceGetPowerUsage", handle)
        memory = _ask(nvml, "nvmlDeviceGetMemoryInfo", handle)
        return Reading(
            sm_clock_mhz=_ask(nvml, "nvmlDeviceGetClockInfo", handle, nvml.NVML_CLOCK_SM),
            throttled=None if bits is None else throttles(bits, nvml),
            power_w=None if milliwatts is None else milliwatts / 1000,
            temperature_c=_ask(nvml, "nvmlDeviceGetTemperature", handle, nvml.NVML_TEMPERATURE_GPU),
            used_bytes=None if memory is None else memory.used,
            process_bytes=own_bytes(_ask(nvml, "nvmlDeviceGetComputeRunningProcesses", handle), os.getpid()),
        )

    return read


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


def _ask(nvml: Any, function: str, *arguments: Any) -> Any:
    """What a function of NVML returns; None where it will not tell: a container, MIG or Jetson may hide any."""
    try:
        return getattr(nvml, function)(*arguments)
    except (nvml.NVMLError, AttributeError):
        return None


def own_bytes(processes: Any, pid: int) -> int | None:
    """The memory of process `pid` among NVML's running processes; None where a container hides it."""
    return next((process.usedGpuMemory for process in processes or () if process.pid == pid), None)


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


def throttles(bits: int, nvml: Any) -> tuple[str, ...]:
    """The reasons in a mask of NVML's clock event reasons that make samples worthless."""
    return tuple(words for name, words in THROTTLES.items() if bits & getattr(nvml, f"nvmlClocksEventReason{name}"))


def verdict(readings: list[Reading]) -> str | None:
    """Why a launch was throttled; None when it was not, or nobody could tell."""
    known = [reading for reading in readings if reading.throttled is not None]
    throttled = [reading for reading in known if reading.throttled]
    if not known or len(throttled) / len(known) <= MOST_THROTTLED:
        return None
    reasons = sorted({reason for reading in throttled for reason in reading.throttled or ()})
    return f"throttled at {len(throttled)} of {len(known)} readings: {', '.join(reasons)}"


def drifted(readings: list[Reading]) -> str | None:
    """Why the SM clock was not steady over the second half of a launch; None when it was, or nobody could tell."""
    clocks = [reading.sm_clock_mhz for reading in readings[len(readings) // 2 :] if reading.sm_clock_mhz]
    if not clocks or max(clocks) <= min(clocks) * (1 + CLOCK_DRIFT):
        return None
    return f"the SM clock moved between {min(clocks)} and {max(clocks)} MHz, expected within {CLOCK_DRIFT:.0%}"


def summary(readings: list[Reading]) -> dict[str, object]:
    """What a record keeps of a launch's readings."""
    clocks = [reading.sm_clock_mhz for reading in readings if reading.sm_clock_mhz is not None]
    watts = [reading.power_w for reading in readings if reading.power_w is not None]
    used = [reading.used_bytes for reading in readings if reading.used_bytes is not None]
    own = [reading.process_bytes for reading in readings if reading.process_bytes is not None]
    temperatures = [reading.temperature_c for reading in readings if reading.temperature_c is not None]
    return {
        "sm_clock_mhz": [min(clocks), max(clocks)] if clocks else None,
        "power_w": max(watts, default=None),
        "temperature_c": max(temperatures, default=None),
        "device_used_bytes": max(used, default=None),
        "process_used_bytes": max(own, default=None),
        "throttle_readings": len(readings),
    }
