"""Lowerings: how a module becomes something that runs. One file each, one line each in LOWERINGS."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixprof.data.errors import UsageError
from mixprof.data.parsing import nearest, parse_bytes, parse_range
from mixprof.lowerings.tensorrt.flavours import INSTALL, is_installed, other_installed

if TYPE_CHECKING:
    import torch

    from mixprof.machine.device import Stream


@dataclass(frozen=True)
class Target:
    """What a module is lowered for."""

    device: str
    dtype: str
    layout: str
    options: dict[str, str]  # of the lowering: {"max-autotune": ""} for "compile:max-autotune"
    threads: int
    cache: Path  # a folder of this run's own, shared by its launches
    images: bool  # the input is (B, 3, H, W), not a mixer's (B, H, W, C)
    key: str  # names what is built, equal for equal builds
    name: str = ""  # of the lowering, without its options


@dataclass(frozen=True)
class Lowered:
    """A forward that is ready to run, with its inputs already on the device."""

    forward: Callable[[], object] | None  # enqueues one forward; None: built, and no device here to run it
    read: Callable[[], torch.Tensor]  # runs one forward into a poisoned buffer where it owns one; the output on the CPU
    build_s: float
    build_cached: bool | None = None  # None: nothing is built
    artifact_bytes: int | None = None
    proof: dict[str, Any] = field(default_factory=dict)
    compilations: Callable[[], int] = lambda: 0  # so far in this process: growth among samples is a recompile
    runs_in_torch: bool = True  # its memory comes from torch's allocator
    stream: Stream | None = None  # it enqueues on; None: a CPU, or torch's current stream
    layer_times: Callable[[int], list[tuple[str, float]]] | None = None  # forwards -> (layer, milliseconds)
    close: Callable[[], None] = lambda: None  # frees what it holds on the device
    read_all: Callable[[], list[torch.Tensor]] | None = None  # like `read`, every output


@dataclass(frozen=True)
class Entry:
    """A lowering in the registry, described without importing it."""

    module: str  # has `lower(module, inputs, target) -> Lowered`
    requires: tuple[str, ...]  # packages
    install: str  # the command that brings them
    options: dict[str, tuple[str, ...] | Callable[[str], object]]  # values, () for a bare one, or a parser of them
    preload: tuple[str, ...]  # modules a fork server imports once for all launches
    compiles: bool = False  # needs a C++ compiler
    files: tuple[str, ...] = ()  # endings of those that it takes in a module's place, by `lower_file`
    engine: bool = False  # built without a device, kept across runs, run in a process without torch's CUDA


ENGINE_OPTIONS: dict[str, tuple[str, ...] | Callable[[str], object]] = {
    "opt": ("0", "1", "2", "3", "4", "5"),
    "workspace": parse_bytes,
    "graph": ("on",),
    "dynamic": (),
    "batches": parse_range,
    "resolutions": parse_range,
}

LOWERINGS: dict[str, Entry] = {
    "eager": Entry(
        module="mixprof.lowerings.eager",
        requires=("torch",),
        install="pip install torch",
        options={"sdpa": ("math", "flash", "efficient", "cudnn"), "graph": ("on",)},
        preload=("torch",),
    ),
    "compile": Entry(
        module="mixprof.lowerings.compiled",
        requires=("torch",),
        install="pip install torch",
        options={"default": (), "max-autotune": (), "reduce-overhead": (), "max-autotune-no-cudagraphs": ()},
        preload=("torch", "torch._dynamo", "torch._inductor.compile_fx"),
        compiles=True,
    ),
    "onnxruntime": Entry(
        module="mixprof.lowerings.onnxruntime",
        requires=("onnx", "onnxscript", "onnxruntime"),
        install="pip install onnx onnxscript onnxruntime",
        options={"opt": ("disable", "basic", "extended", "all")},
        files=(".onnx",),
        preload=("torch", "torch.onnx", "onnxscript", "onnxruntime"),
    ),
    "tensorrt": Entry(
        module="mixprof.lowerings.tensorrt.lower",
        requires=("onnx", "onnxscript", "onnxruntime", "tensorrt"),
        install=INSTALL["tensorrt"],
        options=ENGINE_OPTIONS,
        preload=("torch", "torch.onnx", "onnxscript", "onnxruntime"),
        files=(".onnx", ".plan"),
        engine=True,
    ),
    "tensorrt_rtx": Entry(
        module="mixprof.lowerings.tensorrt.lower",
        requires=("onnx", "onnxscript", "onnxruntime", "tensorrt_rtx"),
        install=INSTALL["tensorrt_rtx"],
        options={**ENGINE_OPTIONS, "sm": ("75", "80", "86", "89", "120", "121")},
        preload=("torch", "torch.onnx", "onnxscript", "onnxruntime"),
        files=(".onnx", ".plan"),
        engine=True,
    ),
}


def has_layers(name: str) -> bool:
    """Whether one more launch can tell where a lowering's time goes: an engine's layers, or eager operators."""
    entry, options = parse(name)
    return entry.engine or (name.split(":")[0] == "eager" and "graph" not in options)


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
        if expected := _why_wrong(option, equals, value, entry.options[option]):
            raise UsageError(f"got '{part}' for lowering '{base}', expected {expected}")
        options[option] = value
    if {"batches", "resolutions"} & set(options) and "dynamic" not in options:
        raise UsageError(f"got lowering '{name}' with a range of shapes, expected the option 'dynamic' with it")
    return entry, options


def _why_wrong(option: str, equals: str, value: str, values: tuple[str, ...] | Callable[[str], object]) -> str | None:
    """What was expected of an option's value; None when the value is right."""
    if callable(values):
        try:
            values(value)
        except ValueError as error:
            return str(error)
        return None
    if (value in values) if values else not equals:
        return None
    return ", ".join(f"{option}={each}" for each in values) or f"'{option}' without a value"


def missing(name: str) -> str | None:
    """Why a lowering is unavailable on this machine, with the command that mends it; None if it is there."""
    entry, _ = parse(name)
    absent = [package for package in entry.requires if not is_installed(package)]
    if absent:
        said = f"lowering '{name}': {', '.join(absent)} is not installed: {entry.install}"
        other = other_installed(name.split(":")[0]) if entry.engine else None
        return said + (f"; {other} is installed here, and is another lowering: --lowerings {other}" if other else "")
    compilers = (os.environ.get("CXX", ""), "c++", "g++", "clang++")
    if entry.compiles and not any(compiler and shutil.which(compiler) for compiler in compilers):
        return f"lowering '{name}': there is no C++ compiler: apt-get install g++"
    return None


def lower(name: str, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], target: Target) -> Lowered:
    """Lower a module, float32 and contiguous on the CPU, for a target. Builds here, never inside a sample."""
    entry, _ = parse(name)
    lowered: Lowered = importlib.import_module(entry.module).lower(module, inputs, target)
    return lowered


def lower_file(name: str, path: Path, inputs: tuple[torch.Tensor, ...], target: Target) -> Lowered:
    """Lower a file that the lowering takes. inputs: those of an ONNX graph in its order and element types."""
    entry, _ = parse(name)
    lowered: Lowered = importlib.import_module(entry.module).lower_file(path, inputs, target)
    return lowered


def taking(path: str) -> tuple[str, ...]:
    """The lowerings, without options, that take such a file in a module's place."""
    return tuple(name for name, entry in LOWERINGS.items() if path.endswith(entry.files or ("\0",)))


def usual_for(path: str) -> str:
    """The lowering that a file gets where none is asked for: the first that takes it and is installed here."""
    names = taking(path)
    return next((name for name in names if missing(name) is None), names[0])
