"""Lowerings: how a module becomes something that runs. One file each, one line each in LOWERINGS."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mixprof.data.case import QUANTIZED, STEP
from mixprof.data.errors import Unsupported, UsageError
from mixprof.data.parsing import Values, nearest, parse_bytes, parse_count, parse_range, why_wrong
from mixprof.lowerings import steps
from mixprof.lowerings.lowered import Lowered as Lowered
from mixprof.lowerings.lowered import Proof as Proof
from mixprof.lowerings.lowered import Target as Target

if TYPE_CHECKING:
    import torch

LAYOUTS = ("contiguous", "channels_last")


@dataclass(frozen=True)
class Entry:
    """A lowering in the registry, described without importing it. Others read its facts here and keep no copy."""

    module: str  # has `lower(module, inputs, target) -> Lowered`, and `lower_file(path, inputs, target)` with files
    requires: tuple[str, ...]  # packages
    install: str  # the command that brings them
    options: dict[str, Values] = field(default_factory=dict)
    preload: tuple[str, ...] = ("torch",)  # modules a fork server imports once for all launches
    compiles: bool = False  # needs a C++ compiler
    files: tuple[str, ...] = ()  # endings of those that it takes in a module's place
    engine: bool = False  # built without a device, kept across runs, run in a process without torch's CUDA
    layers: Literal["own", "operators"] | None = None  # times of one more launch: its runtime's, eager's operators
    inference_mode: bool = False  # torch.inference_mode around its forwards: tracers refuse such tensors
    layouts: tuple[str, ...] = ()  # memory formats that mean something to it; () where the runtime chooses
    fuses: bool = False  # makes kernels of its own out of several operators
    quantizes: tuple[str, ...] = ()  # of the dtypes of quantized graphs, those that it takes
    form: str | None = None  # the arrangement of models that suits it, by a lowering's name; None: its own name's
    chooses: bool = False  # the formulations of a model are raced before a case in it; else the usual ones run
    races_in: str | None = None  # the lowering that a race is run in, where its own takes too long to build rivals
    trains: bool = False  # takes training steps, by lowerings/training.py
    cpu_only: bool = False  # runs on no GPU
    build_s: float = 0.0  # assumed of a case that nobody has built yet


TENSORRT = Entry(
    module="mixprof.lowerings.tensorrt.lower",
    requires=("onnx", "onnxscript", "onnxruntime", "tensorrt"),
    install="pip install 'mixprof[tensorrt]'",
    options={
        "opt": ("0", "1", "2", "3", "4", "5"),
        "workspace": parse_bytes,
        "graph": ("on",),
        "dynamic": (),
        "batches": parse_range,
        "resolutions": parse_range,
    },
    preload=("torch", "torch.onnx", "onnxscript", "onnxruntime"),
    files=(".onnx", ".plan", ".engine"),
    quantizes=("int8", "fp8"),
    engine=True,
    layers="own",
    fuses=True,
    build_s=30.0,
)

LOWERINGS: dict[str, Entry] = {
    "eager": Entry(
        module="mixprof.lowerings.eager",
        requires=("torch",),
        install="pip install torch",
        options={"sdpa": ("math", "flash", "efficient", "cudnn"), "graph": ("on",), **steps.OPTIONS},
        trains=True,
        layers="operators",
        inference_mode=True,
        layouts=LAYOUTS,
        chooses=True,
    ),
    "compile": Entry(
        module="mixprof.lowerings.compiled",
        requires=("torch",),
        install="pip install torch",
        options={
            "default": (),
            "max-autotune": (),
            "reduce-overhead": (),
            "max-autotune-no-cudagraphs": (),
            **steps.COMPILED,
        },
        trains=True,
        preload=("torch", "torch._dynamo", "torch._inductor.compile_fx"),
        compiles=True,
        layouts=LAYOUTS,
        fuses=True,
        chooses=True,
        build_s=20.0,
    ),
    "aot": Entry(
        module="mixprof.lowerings.aot",
        requires=("torch",),
        install="pip install torch",
        options={"max-autotune": ()},
        preload=("torch", "torch._dynamo", "torch._inductor.compile_fx", "torch._inductor.package"),
        compiles=True,
        layouts=LAYOUTS,
        fuses=True,
        form="compile",
        chooses=True,
        races_in="compile",  # inductor's code for it, without the package and the process that makes it
        cpu_only=True,  # CUDA does not let the child that compiles be forked
        build_s=40.0,
    ),
    "onnxruntime": Entry(
        module="mixprof.lowerings.onnxruntime",
        requires=("onnx", "onnxscript", "onnxruntime"),
        install="pip install 'mixprof[onnxruntime]', or 'mixprof[onnxruntime-gpu]' for CUDA",
        options={
            "opt": ("disable", "basic", "extended", "all"),
            "fallback": ("cpu",),
            "provider": ("tensorrt", "openvino"),
        },
        preload=("torch", "torch.onnx", "onnxscript", "onnxruntime"),
        files=(".onnx",),
        quantizes=("int8",),
        chooses=True,
        build_s=5.0,
    ),
    "openvino": Entry(
        module="mixprof.lowerings.openvino",
        requires=("onnx", "onnxscript", "openvino"),
        install="pip install 'mixprof[openvino]'",
        options={
            "hint": ("latency", "throughput"),
            "streams": parse_count,
            "precision": ("f32", "bf16", "f16", "device"),
        },
        preload=("torch", "torch.onnx", "onnxscript", "openvino"),
        files=(".onnx",),
        quantizes=("int8",),
        layers="own",
        fuses=True,
        form="onnxruntime",
        chooses=True,
        cpu_only=True,
        build_s=5.0,
    ),
    "tensorrt": TENSORRT,
    "tensorrt_rtx": replace(
        TENSORRT,
        requires=("onnx", "onnxscript", "onnxruntime", "tensorrt_rtx"),
        install="pip install 'mixprof[rtx]'",
        options={**TENSORRT.options, "sm": ("75", "80", "86", "89", "120", "121")},
        build_s=5.0,
    ),
}


def parse(name: str) -> tuple[Entry, dict[str, str]]:
    """A lowering's entry and options; UsageError for an unknown name, option or value."""
    base, *parts = name.split(":")
    entry = LOWERINGS.get(base)
    if entry is None:
        raise UsageError(f"got lowering '{base}', expected {nearest(base, LOWERINGS)}; `mixprof doctor` lists all")
    options = {}
    for part in parts:
        option, equals, value = part.partition("=")
        if option not in entry.options:
            raise UsageError(f"got option '{option}' of lowering '{base}', expected {nearest(option, entry.options)}")
        if expected := why_wrong(option, equals, value, entry.options[option]):
            raise UsageError(f"got '{part}' for lowering '{base}', expected {expected}")
        options[option] = value
    if {"batches", "resolutions"} & set(options) and "dynamic" not in options:
        raise UsageError(f"got lowering '{name}' with a range of shapes, expected the option 'dynamic' with it")
    return entry, options


def entry_of(name: str) -> Entry:
    """The facts of a lowering, whatever its options."""
    return parse(name)[0]


def layers_of(name: str) -> str | None:
    """Which layers one more launch can time, "own" or "operators"; None for none. Eager's CUDA graph hides its own."""
    entry, options = parse(name)
    return None if entry.layers == "operators" and "graph" in options else entry.layers


def facts() -> dict[str, dict[str, Any]]:
    """Every lowering's facts as plain values, for a run's manifest, in the order in which reports list them."""
    return {
        name: {"fuses": entry.fuses, "engine": entry.engine, "layouts": list(entry.layouts), "layers": entry.layers}
        for name, entry in LOWERINGS.items()
    }


def form_of(name: str) -> str:
    """The lowering that models are arranged for, its options kept."""
    base, *options = name.split(":")
    return ":".join([entry_of(name).form or base, *options])


def raced_in(name: str) -> str:
    """The lowering that formulations are raced in for this one, its options kept."""
    base, *options = name.split(":")
    return ":".join([entry_of(name).races_in or base, *options])


def is_installed(package: str) -> bool:
    """Whether a package can be imported. Stubs alone leave a folder of its name, which is none."""
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:  # what it is a part of
        return False
    return spec is not None and spec.origin is not None


def missing(name: str) -> str | None:
    """Why a lowering is unavailable on this machine, with the command that mends it; None if it is there."""
    entry = entry_of(name)
    absent = [package for package in entry.requires if not is_installed(package)]
    if absent:
        reason = f"lowering '{name}': {', '.join(absent)} is not installed: {entry.install}"
        if "onnxruntime" in absent and entry is not LOWERINGS["onnxruntime"]:
            reason += f" and {LOWERINGS['onnxruntime'].install}"
        engines = [one for one, its in LOWERINGS.items() if entry.engine and its.engine and _is_there(its)]
        return reason + "".join(f"; {one} is installed, another lowering: --lowerings {one}" for one in engines)
    compilers = (os.environ.get("CXX", ""), "c++", "g++", "clang++")
    if entry.compiles and not any(compiler and shutil.which(compiler) for compiler in compilers):
        return f"lowering '{name}': there is no C++ compiler: apt-get install g++"
    return None


def _is_there(entry: Entry) -> bool:
    return all(map(is_installed, entry.requires))


def lower(name: str, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], target: Target) -> Lowered:
    """Lower a module, float32 and contiguous on the CPU, for a target. Builds here, never inside a sample."""
    _refuse_unquantized(name, target.dtype)
    path = entry_of(name).module if target.step == STEP else "mixprof.lowerings.training"
    lowered: Lowered = importlib.import_module(path).lower(module, inputs, target)
    return lowered


def _refuse_unquantized(name: str, dtype: str) -> None:
    """Unsupported for a dtype of quantized graphs that a lowering does not take."""
    if dtype in QUANTIZED and dtype not in entry_of(name).quantizes:
        able = [other for other, entry in LOWERINGS.items() if dtype in entry.quantizes]
        raise Unsupported(f"lowering '{name}': runs no {dtype}: use --lowerings {' or '.join(able)}")


def lower_file(name: str, path: Path, inputs: tuple[torch.Tensor, ...], target: Target) -> Lowered:
    """Lower a file that the lowering takes. inputs: those of an ONNX graph in its order and element types.

    For int8 and fp8 a float32 graph is quantized first.
    """
    if target.dtype in QUANTIZED:
        from mixprof.lowerings.quantize import quantized

        _refuse_unquantized(name, target.dtype)
        path = quantized(path, inputs, target)
    lowered: Lowered = importlib.import_module(entry_of(name).module).lower_file(path, inputs, target)
    return lowered


def cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The tensor in a dtype; integers and truths as they are."""
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def convert(module: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """The module in a dtype, in place; integers, and complex numbers, which no real dtype holds, as they are."""
    return module._apply(lambda tensor: cast(tensor, dtype))


def taking(path: str) -> tuple[str, ...]:
    """The lowerings, without options, that take such a file in a module's place."""
    return tuple(name for name, entry in LOWERINGS.items() if path.endswith(entry.files or ("\0",)))


def usual_for(path: str) -> str:
    """The lowering that a file gets where none is asked for: the first that takes it and is installed here."""
    names = taking(path)
    return next((name for name in names if missing(name) is None), names[0])
