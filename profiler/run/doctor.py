"""What works on this machine and, for what does not, why and what to install."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mixprof import lowerings
from mixprof.data import cache
from mixprof.data.errors import UsageError
from mixprof.machine import cpu_contention, quota
from mixprof.machine.process import allowed_cores, default_threads

OPTIONAL = {
    **{name: entry.install for name, entry in lowerings.LOWERINGS.items() if entry.engine},
    "pycuda": "pip install 'mixprof[cuda]'",
    "pynvml": "pip install 'mixprof[cuda]'",
    "zeus": "pip install 'mixprof[energy]'",
    "timm": "pip install 'mixprof[zoo]'",
}


def examine(environment: dict[str, Any]) -> dict[str, Any]:
    """Devices, versions, and each lowering, optional package and sensor with the reason why it does not work."""
    return {
        "devices": environment["devices"],
        "versions": environment["versions"],
        "threads": {"default": default_threads(), "allowed": allowed_cores(), "quota": quota.cpus()},
        "testbed": environment["testbed"],
        "lowerings": {name: _verdict(lowerings.missing(name)) for name in lowerings.LOWERINGS},
        "packages": {name: _verdict(_package(name, install)) for name, install in OPTIONAL.items()},
        "engine cache": {str(cache.folder()): _verdict(_cache_trouble())},
        "sensors": {name: _verdict(reason) for name, reason in _sensors(environment["devices"]).items()},
    }


def _verdict(reason: str | None) -> dict[str, Any]:
    return {"works": reason is None, "reason": reason}


def _cache_trouble() -> str | None:
    """Why engines cannot be kept in the cache folder, None if they can; the folder is not made."""
    place = cache.folder()
    if not place.exists():
        above = next(folder for folder in place.parents if folder.exists())
        return None if os.access(above, os.W_OK) else "cannot be made: set MIXPROF_CACHE to a folder of your own"
    try:
        cache.own_folder(cache.folder())
    except (UsageError, OSError) as error:
        return str(error)
    return None


def _package(name: str, install: str) -> str | None:
    return None if lowerings.is_installed(name) else f"not installed: {install}"


def _sensors(devices: list[str]) -> dict[str, str | None]:
    energy = Path("/sys/class/powercap/intel-rapl:0/energy_uj")
    peak = os.access("/proc/self/clear_refs", os.W_OK)
    return {
        "cuda events": None if len(devices) > 1 else "no CUDA device",
        "process peak memory": None if peak else "/proc/self/clear_refs is not writable: needs Linux",
        "cpu energy (RAPL)": None if os.access(energy, os.R_OK) else f"{energy} is not readable here",
        "steal and waiting time": None
        if cpu_contention.read()
        else "/proc/self/task/*/schedstat is not readable: needs Linux",
    }


def _threads(threads: dict[str, Any]) -> str:
    quota = threads["quota"]
    bound = "" if quota is None else f", {quota:.3g} of the control group's quota"
    return f"{threads['default']} by default: {threads['allowed']} cores{bound}"


def as_text(found: dict[str, Any]) -> str:
    """The examination for a person."""
    lines = [f"devices      {', '.join(found['devices'])} (default: {found['devices'][-1]})"]
    lines += [f"versions     {', '.join(f'{name} {version}' for name, version in found['versions'].items())}"]
    lines += [f"threads      {_threads(found['threads'])}"]
    for part in ("lowerings", "packages", "engine cache", "sensors"):
        lines.append(part)
        for name, verdict in found[part].items():
            lines.append(f"  {name:24} {'works' if verdict['works'] else verdict['reason']}")
    return "\n".join(lines)
