"""Lowerings: how a module becomes something that runs. One file each, one line each in LOWERINGS."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mixprof.data.errors import Unsupported, UsageError
from mixprof.data.parsing import Values, nearest, parse_bytes, parse_count, parse_range, why_wrong

if TYPE_CHECKING:
    import torch

    from mixprof.lowerings.cold import Cold
    from mixprof.lowerings.quantize import Calibration
    from mixprof.machine.devices import Device

Proof = dict[str, Any]  # JSON: each lowering's own
LAYOUTS = ("contiguous", "channels_last")


@dataclass(frozen=True)
class Target:
    """The device, precision and surroundings that a module is lowered for."""

    device: str
    dtype: str
    layout: str
    options: dict[str, str]  # of the lowering: {"max-autotune": ""} for "compile:max-autotune"
    threads: int
    cache: Path  # a folder of this run's own, shared by its launches
    images: bool  # the input is (B, 3, H, W), not a mixer's (B, H, W, C)
    key: str  # names what is built, equal for equal builds
    name: str = ""  # of the lowering, without its options
    calibration: Calibration | None = None  # for int8


@dataclass(frozen=True)
class Lowered:
    """A forward that is ready to run, with its inputs already on the device."""

    forward: Callable[[], object] | None  # enqueues one forward; None: built, and no device here to run it
    read: Callable[[], torch.Tensor]  # runs one forward into a poisoned buffer where it owns one; the output on the CPU
    build_s: float
    build_cached: bool | None = None  # None: nothing is built
    artifact_bytes: int | None = None
    proof: Proof = field(default_factory=dict)
    compilations: Callable[[], int] = lambda: 0  # so far in this process: growth among samples is a recompile
    runs_in_torch: bool = True  # its memory comes from torch's allocator
    device: Device | None = None  # its own; None: the case's as torch has it
    layer_times: Callable[[int], list[tuple[str, float]]] | None = None  # forwards -> (layer, milliseconds)
    close: Callable[[], None] = lambda: None  # frees what it holds on the device
    read_all: Callable[[], list[torch.Tensor]] | None = None  # like `read`, every output
    definition: Callable[[], list[torch.Tensor]] | None = None  # of int8: what the quantized graph says is right
    cold: Cold | None = None  # how a process that deploys its artifact loads it; None: no such process

    def outputs(self) -> list[torch.Tensor]:
        """Run one forward; every output tensor on the CPU."""
        return self.read_all() if self.read_all is not None else [self.read()]


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
    quantizes: bool = False  # takes int8
    form: str | None = None  # the arrangement of models that suits it, by a lowering's name; None: its own name's
    chooses: bool = False  # the formulations of a model are raced in it before a case; else the usual ones run
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
    quantizes=True,
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
        options={"sdpa": ("math", "flash", "efficient", "cudnn"), "graph": ("on",)},
        layers="operators",
        inference_mode=True,
        layouts=LAYOUTS,
        chooses=True,
    ),
    "compile": Entry(
        module="mixprof.lowerings.compiled",
        requires=("torch",),
        install="pip install torch",
        options={"default": (), "max-autotune": (), "reduce-overhead": (), "max-autotune-no-cudagraphs": ()},
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
        build_s=40.0,
    ),
    "onnxruntime": Entry(
        module="mixprof.lowerings.onnxruntime",
        requires=("onnx", "onnxscript", "onnxruntime"),
        install="pip install 'mixprof[onnxruntime]', or 'mixprof[onnxruntime-gpu]' for CUDA",
        options={"opt": ("disable", "basic", "extended", "all"), "fallback": ("cpu",)},
        preload=("torch", "torch.onnx", "onnxscript", "onnxruntime"),
        files=(".onnx",),
        quantizes=True,
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
        quantizes=True,
        layers="own",
        fuses=True,
        form="onnxruntime",
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
        others = [other for other, its in LOWERINGS.items() if entry.engine and its.engine and _is_there(its)]
        return reason + "".join(
            f"; {one} is installed here, and is another lowering: --lowerings {one}" for one in others
        )
    compilers = (os.environ.get("CXX", ""), "c++", "g++", "clang++")
    if entry.compiles and not any(compiler and shutil.which(compiler) for compiler in compilers):
        return f"lowering '{name}': there is no C++ compiler: apt-get install g++"
    return None


def _is_there(entry: Entry) -> bool:
    return all(map(is_installed, entry.requires))


def lower(name: str, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], target: Target) -> Lowered:
    """Lower a module, float32 and contiguous on the CPU, for a target. Builds here, never inside a sample."""
    if target.dtype == "int8":
        _refuse_float(name)
    lowered: Lowered = importlib.import_module(entry_of(name).module).lower(module, inputs, target)
    return lowered


def _refuse_float(name: str) -> None:
    """Unsupported for a lowering that does not take int8."""
    if not entry_of(name).quantizes:
        able = [other for other, entry in LOWERINGS.items() if entry.quantizes]
        raise Unsupported(f"lowering '{name}': runs no int8: use --lowerings {' or '.join(able)}")


def lower_file(name: str, path: Path, inputs: tuple[torch.Tensor, ...], target: Target) -> Lowered:
    """Lower a file that the lowering takes. inputs: those of an ONNX graph in its order and element types.

    For int8 a float32 graph is quantized first.
    """
    if target.dtype == "int8":
        from mixprof.lowerings.quantize import quantized

        _refuse_float(name)
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
