"""What works on this machine and, for what does not, why and what to install."""

import importlib.metadata
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from mixprof import lowerings
from mixprof.data import cache
from mixprof.data.case import QUANTIZED
from mixprof.data.errors import UsageError
from mixprof.data.messages import Machine
from mixprof.machine import cpu_contention, nvml, quota
from mixprof.machine.process import allowed_cores, default_threads

OPTIONAL = {
    **{name: entry.install for name, entry in lowerings.LOWERINGS.items() if name in entry.requires},
    "cuda.bindings": "pip install 'mixprof[cuda]'",
    "pycuda": "pip install 'mixprof[cuda]'",
    "pynvml": "pip install 'mixprof[cuda]'",
    "onnxruntime-openvino": "pip install onnxruntime-openvino, in an environment without onnxruntime: the same module",
    "onnxruntime-gpu": "pip uninstall onnxruntime, then pip install 'mixprof[onnxruntime-gpu]'",
    "zeus": "pip install 'mixprof[energy]'",
    "timm": "pip install 'mixprof[zoo]'",
}


PROVIDERS = {
    "openvino": ("onnxruntime-openvino",),
    "tensorrt": ("onnxruntime-gpu", "tensorrt"),
    "cuda": ("onnxruntime-gpu",),
}


@dataclass(frozen=True)
class Finding:
    """Whether something works here, and why not."""

    works: bool
    reason: str | None


@dataclass(frozen=True)
class Examination:
    """What a machine is, and by part ("lowerings", "sensors", …) what works on it."""

    devices: list[str]
    versions: dict[str, str]
    testbed: Mapping[str, object]
    threads: Mapping[str, float | None]
    parts: dict[str, dict[str, Finding]]
    no_cuda: str | None  # why there is no CUDA device, where there is none

    def to_json(self) -> dict[str, object]:
        values = asdict(self)
        parts: dict[str, object] = values.pop("parts")
        return {**values, **parts}


def examine(machine: Machine) -> Examination:
    """Look at lowerings, optional packages, the cache of engines and sensors."""
    no_cuda = machine.no_cuda.reason if machine.no_cuda else None
    parts = {
        "cuda": {"driver and torch": no_cuda},
        "lowerings": {name: lowerings.missing(name) for name in lowerings.LOWERINGS},
        "providers of onnxruntime": {name: _absent(packages) for name, packages in PROVIDERS.items()},
        "quantized dtypes": {dtype: _unquantized(dtype, no_cuda) for dtype in QUANTIZED},
        "packages": {name: _package(name, install) for name, install in OPTIONAL.items()},
        "engine cache": {str(cache.folder()): _cache_trouble()},
        "sensors": _sensors(no_cuda),
    }
    return Examination(
        list(machine.devices),
        machine.versions,
        machine.testbed,
        {"default": default_threads(), "allowed": allowed_cores(), "quota": quota.cpus()},
        {part: {name: Finding(why is None, why) for name, why in of.items()} for part, of in parts.items()},
        no_cuda,
    )


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


def _absent(packages: Iterable[str]) -> str | None:
    """Why a provider of onnxruntime is not there; None if its packages are."""
    absent = [name for name in packages if _package(name, OPTIONAL[name])]
    return "; ".join(f"{name} is not installed: {OPTIONAL[name]}" for name in absent) or None


def _unquantized(dtype: str, no_cuda: str | None) -> str | None:
    """Why no lowering here runs a dtype of quantized graphs; None if one does."""
    able = {name: entry for name, entry in lowerings.LOWERINGS.items() if dtype in entry.quantizes}
    reasons = {name: lowerings.missing(name) for name in able}
    here = [name for name, reason in reasons.items() if reason is None]
    if here and no_cuda and all(able[name].engine for name in here):
        return f"no CUDA device: {', '.join(here)} builds engines here, and runs none"
    return None if here else "; ".join(filter(None, reasons.values()))


def _package(name: str, install: str) -> str | None:
    if "-" not in name:
        return None if lowerings.is_installed(name) else f"not installed: {install}"
    try:  # a distribution whose module has another's name
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return f"not installed: {install}"
    return None


def _sensors(no_cuda: str | None) -> dict[str, str | None]:
    energy = Path("/sys/class/powercap/intel-rapl:0/energy_uj")
    peak = os.access("/proc/self/clear_refs", os.W_OK)
    return {
        "cuda events": no_cuda and "no CUDA device",
        "clocks, power and processes (NVML)": "no CUDA device" if no_cuda else nvml.trouble(),
        "process peak memory": None if peak else "/proc/self/clear_refs is not writable: needs Linux",
        "cpu energy (RAPL)": None if os.access(energy, os.R_OK) else f"{energy} is not readable here",
        "steal and waiting time": None
        if cpu_contention.read()
        else "/proc/self/task/*/schedstat is not readable: needs Linux",
    }


def as_text(examination: Examination) -> str:
    """The examination for a person."""
    versions = ", ".join(f"{name} {version}" for name, version in examination.versions.items())
    devices, threads = examination.devices, examination.threads
    lines = [f"devices      {', '.join(devices)} (default: {devices[-1]})", f"versions     {versions}"]
    bound = "" if threads["quota"] is None else f", {threads['quota']:.3g} of the control group's quota"
    lines.append(f"threads      {threads['default']} by default: {threads['allowed']} cores{bound}")
    for part, findings in examination.parts.items():
        lines.append(part)
        lines += [f"  {name:34} {'works' if each.works else each.reason}" for name, each in findings.items()]
    return "\n".join(lines)
