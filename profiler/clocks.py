"""Clocks, throttle reasons and memory of a GPU through NVML. Never run on a GPU yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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


def reader(index: int) -> Callable[[], Reading] | None:
    """A function that reads GPU `index`; None where NVML is not installed or finds no driver."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    except pynvml.NVMLError:
        return None

    def ask(function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except pynvml.NVMLError:
            return None  # a container, MIG or Jetson may hide any of them

    def read() -> Reading:
        bits = ask(pynvml.nvmlDeviceGetCurrentClocksEventReasons, handle)
        milliwatts = ask(pynvml.nvmlDeviceGetPowerUsage, handle)
        memory = ask(pynvml.nvmlDeviceGetMemoryInfo, handle)
        return Reading(
            sm_clock_mhz=ask(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM),
            throttled=None if bits is None else throttles(bits, pynvml),
            power_w=None if milliwatts is None else milliwatts / 1000,
            temperature_c=ask(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU),
            used_bytes=None if memory is None else memory.used,
        )

    return read


def throttles(bits: int, nvml: Any) -> tuple[str, ...]:
    """The reasons in a mask of NVML's clock event reasons that make samples worthless."""
    return tuple(said for name, said in THROTTLES.items() if bits & getattr(nvml, f"nvmlClocksEventReason{name}"))


def verdict(readings: list[Reading]) -> str | None:
    """Why a launch was throttled; None when it was not, or nobody could tell."""
    known = [reading for reading in readings if reading.throttled is not None]
    held = [reading for reading in known if reading.throttled]
    if not known or len(held) / len(known) <= MOST_THROTTLED:
        return None
    reasons = sorted({reason for reading in held for reason in reading.throttled or ()})
    return f"throttled at {len(held)} of {len(known)} readings: {', '.join(reasons)}"


def drifted(readings: list[Reading]) -> str | None:
    """Why the SM clock was not steady over the second half of a launch; None when it was, or nobody could tell."""
    clocks = [reading.sm_clock_mhz for reading in readings[len(readings) // 2 :] if reading.sm_clock_mhz]
    if not clocks or max(clocks) <= min(clocks) * (1 + CLOCK_DRIFT):
        return None
    return f"the SM clock moved between {min(clocks)} and {max(clocks)} MHz, expected within {CLOCK_DRIFT:.0%}"


def summary(readings: list[Reading]) -> dict[str, Any]:
    """What a record keeps of a launch's readings."""
    clocks = [reading.sm_clock_mhz for reading in readings if reading.sm_clock_mhz is not None]
    watts = [reading.power_w for reading in readings if reading.power_w is not None]
    used = [reading.used_bytes for reading in readings if reading.used_bytes is not None]
    temperatures = [reading.temperature_c for reading in readings if reading.temperature_c is not None]
    return {
        "sm_clock_mhz": [min(clocks), max(clocks)] if clocks else None,
        "power_w": max(watts, default=None),
        "temperature_c": max(temperatures, default=None),
        "device_used_bytes": max(used, default=None),
        "throttle_readings": len(readings),
    }
