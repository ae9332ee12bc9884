"""Lowerings: how a module becomes something that runs. One file each, one line each in LOWERINGS."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiler.sweep import nearest
from profiler.types import UsageError

if TYPE_CHECKING:
    import torch


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


@dataclass(frozen=True)
class Lowered:
    """A forward that is ready to run, with its inputs already on the device."""

    forward: Callable[[], object]  # enqueues one forward
    read: Callable[[], torch.Tensor]  # runs one forward into a poisoned buffer where it owns one; the output on the CPU
    build_s: float
    build_cached: bool | None = None  # None: nothing is built
    artifact_bytes: int | None = None
    proof: dict[str, Any] = field(default_factory=dict)
    compilations: Callable[[], int] = lambda: 0  # so far in this process: growth among samples is a recompile
    runs_in_torch: bool = True  # its memory comes from torch's allocator


@dataclass(frozen=True)
class Entry:
    """A lowering in the registry, described without importing it."""

    module: str  # has `lower(module, inputs, target) -> Lowered`
    requires: tuple[str, ...]  # packages
    install: str  # the command that brings them
    options: dict[str, tuple[str, ...]]  # allowed options and their values; () for a bare one
    preload: tuple[str, ...]  # modules a fork server imports once for all launches
    compiles: bool = False  # needs a C++ compiler


LOWERINGS: dict[str, Entry] = {
    "eager": Entry(
        module="profiler.lowerings.eager",
        requires=("torch",),
        install="pip install torch",
        options={"sdpa": ("math", "flash", "efficient", "cudnn"), "graph": ("on",)},
        preload=("torch",),
    ),
    "compile": Entry(
        module="profiler.lowerings.compiled",
        requires=("torch",),
        install="pip install torch",
        options={"default": (), "max-autotune": (), "reduce-overhead": (), "max-autotune-no-cudagraphs": ()},
        preload=("torch", "torch._dynamo", "torch._inductor.compile_fx"),
        compiles=True,
    ),
    "onnxruntime": Entry(
        module="profiler.lowerings.onnxruntime",
        requires=("onnx", "onnxscript", "onnxruntime"),
        install="pip install onnx onnxscript onnxruntime",
        options={"opt": ("disable", "basic", "extended", "all")},
        preload=("torch", "torch.onnx", "onnxscript", "onnxruntime"),
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
        values = entry.options[option]
        if (value not in values) if values else bool(equals):
            expected = ", ".join(f"{option}={each}" for each in values) or f"'{option}' without a value"
            raise UsageError(f"got '{part}' for lowering '{base}', expected {expected}")
        options[option] = value
    return entry, options


def missing(name: str) -> str | None:
    """Why a lowering is unavailable on this machine, with the command that mends it; None if it is there."""
    entry, _ = parse(name)
    absent = [package for package in entry.requires if importlib.util.find_spec(package) is None]
    if absent:
        return f"lowering '{name}': {', '.join(absent)} is not installed: {entry.install}"
    compilers = (os.environ.get("CXX", ""), "c++", "g++", "clang++")
    if entry.compiles and not any(compiler and shutil.which(compiler) for compiler in compilers):
        return f"lowering '{name}': there is no C++ compiler: apt-get install g++"
    return None


def lower(name: str, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], target: Target) -> Lowered:
    """Lower a module, float32 and contiguous on the CPU, for a target. Builds here, never inside a sample."""
    entry, _ = parse(name)
    lowered: Lowered = importlib.import_module(entry.module).lower(module, inputs, target)
    return lowered
