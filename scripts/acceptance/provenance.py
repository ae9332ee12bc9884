"""What was measured and on what: source, versions, the device as driver, NVML and `mixprof doctor` see it."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from acceptance.commands import command
from acceptance.frame import Seen, Skipped, Value
from acceptance.probes import ROOT

PACKAGES = ("torch", "triton", "numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "cuda-bindings", "pycuda",
            "nvidia-ml-py", "tensorrt", "tensorrt-rtx", "pandas", "plotly")  # fmt: skip
VARIABLES = ("CUDA", "NVIDIA", "PYTORCH", "TORCH", "TRITON", "CUBLAS", "CUDNN", "OMP", "MKL", "LD_", "MIXPROF")
SOURCES = ("profiler", "models", "reports", "scripts")
NO_DRIVER, NO_DEVICE = -1, 100
FIELDS = {"total_energy_mj": 83, "power_average_mw": 185, "power_instant_mw": 186}  # NVML's field identifiers
DEVICE_CALLS = (
    "Name", "UUID", "Brand", "Architecture", "CudaComputeCapability", "MemoryInfo", "EccMode", "MigMode",
    "PersistenceMode",
    "ComputeMode", "PowerUsage", "EnforcedPowerLimit", "PowerManagementLimitConstraints", "TotalEnergyConsumption",
    "CurrentClocksEventReasons", "SupportedClocksEventReasons", "PerformanceState", "UtilizationRates",
    "ComputeRunningProcesses", "CurrPcieLinkGeneration", "CurrPcieLinkWidth", "NumGpuCores", "MemoryBusWidth",
)  # fmt: skip


def device(label: str) -> Seen:
    """Whether CUDA starts, how many devices it has, and the name of the one that is asked for. Needs no package."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Seen({"status": NO_DRIVER, "devices": 0, "name": None, "reason": _reason()})
    status, count, number = library.cuInit(0), ctypes.c_int(0), ctypes.c_int(0)
    name = ctypes.create_string_buffer(256)
    there = (
        status == 0
        and library.cuDeviceGetCount(ctypes.byref(count)) == 0
        and library.cuDeviceGet(ctypes.byref(number), int(label.partition(":")[2] or 0)) == 0
        and library.cuDeviceGetName(name, len(name), number) == 0
    )
    model = name.value.decode() if there else None
    return Seen({"status": status, "devices": count.value, "name": model, "reason": None if there else _reason()})


def _reason() -> str | None:
    """Why there is no device, in mixprof's words; None where it can't be imported."""
    try:
        from mixprof.machine import cuda_driver
    except ImportError:
        return None
    absent = cuda_driver.no_device()
    return None if absent is None else absent.reason


def source(label: str) -> Seen:
    """Which code, which packages, which machine, which variables that change kernels."""
    files = sorted(path for folder in SOURCES for path in (ROOT / folder).rglob("*.py"))
    git = [shutil.which("git") or "git", "-c", f"safe.directory={ROOT}"]
    commit, changed = (_said([*git, *rest]) for rest in (["rev-parse", "HEAD"], ["status", "--porcelain"]))
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    variables = {name: value for name, value in os.environ.items() if name.startswith(VARIABLES)}
    values: dict[str, Value] = {
        "commit": commit,
        "changed_files": None if changed is None else len(changed.splitlines()),
        "sha256": hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cpu": names[0].partition(":")[2].strip() if names else None,
        "cores": len(os.sched_getaffinity(0)),
        **dict(_versions()),
    }
    return Seen(values, raw={"variables": variables})


def _said(arguments: list[str]) -> str | None:
    try:
        done = command(arguments, 20)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _versions() -> Iterator[tuple[str, str | None]]:
    for package in PACKAGES:
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            yield package, None
    import torch

    yield "torch_cuda", torch.version.cuda
    if torch.backends.cuda.is_built():
        yield "cudnn", str(torch.backends.cudnn.version())


def doctor(label: str) -> Seen:
    """What `mixprof doctor` says; it must end well and know the device."""
    done = command([sys.executable, "-m", "mixprof", "doctor", "--json"], 100)
    if done.returncode:
        return Seen(wrong=(f"doctor ended with {done.returncode}: {done.stderr.strip()[-600:]}",))
    said = json.loads(done.stdout)
    lowerings = {f"lowering.{name}": part["works"] for name, part in said.get("lowerings", {}).items()}
    sensors = {f"sensor.{name}": part["works"] for name, part in said.get("sensors", {}).items()}
    knows = label in said["devices"] or label.startswith("sim")
    wrong = () if knows else (f"doctor lists {said['devices']}, not {label}",)
    return Seen({**lowerings, **sensors}, wrong=wrong, raw={"doctor": said})


def nvml(label: str) -> Seen:
    """What NVML answers to each question, or the error by which it refuses; raw, for fixtures."""
    try:
        import pynvml
    except ImportError as error:
        raise Skipped("pynvml is not installed: pip install nvidia-ml-py") from error
    from mixprof.machine.cuda_driver import device_uuid

    pynvml.nvmlInit()
    uuid = device_uuid(int(label.partition(":")[2]))
    if uuid is None:
        return Seen(wrong=("the driver tells no UUID of the device, by which NVML knows it",))
    handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
    asked = {name: _asked(pynvml, f"nvmlDeviceGet{name}", handle) for name in DEVICE_CALLS}
    asked["DriverVersion"] = _asked(pynvml, "nvmlSystemGetDriverVersion")
    asked["Temperature"] = _asked(pynvml, "nvmlDeviceGetTemperature", handle, pynvml.NVML_TEMPERATURE_GPU)
    for kind, number in {"SM": pynvml.NVML_CLOCK_SM, "MEM": pynvml.NVML_CLOCK_MEM}.items():
        asked[f"Clock{kind}"] = _asked(pynvml, "nvmlDeviceGetClockInfo", handle, number)
        asked[f"MaxClock{kind}"] = _asked(pynvml, "nvmlDeviceGetMaxClockInfo", handle, number)
    for name, number in FIELDS.items():
        asked[f"Field.{name}"] = _asked(pynvml, "nvmlDeviceGetFieldValues", handle, [number])
    refused = sorted(name for name, answer in asked.items() if str(answer).startswith("NVMLError"))
    values: dict[str, Value] = {"uuid": uuid, "refused": ", ".join(refused)}
    values |= {name: name not in refused for name in ("Field.power_instant_mw", "TotalEnergyConsumption", "MigMode")}
    return Seen(values, raw=asked)


def _asked(nvml: object, function: str, *arguments: object) -> object:
    """A call's answer in words that JSON holds."""
    try:
        answer = getattr(nvml, function)(*arguments)
    except Exception as error:  # NVML's own errors, and a function that this pynvml or this driver lacks
        return f"NVMLError: {type(error).__name__}: {error}"
    return _plain(answer)


def _plain(answer: object) -> object:
    if isinstance(answer, list | tuple):
        return [_plain(each) for each in answer]
    if hasattr(answer, "_fields_"):
        return {name: _plain(getattr(answer, name)) for name, *_ in answer._fields_}
    return answer if isinstance(answer, str | int | float | bool | None) else str(answer)
