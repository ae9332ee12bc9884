"""The trtexec command that times the same engine under the same conditions."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from profiler.engines.builder import Recipe
from profiler.engines.graphs import Graph

if TYPE_CHECKING:
    import torch

NAMES = {"tensorrt": "trtexec", "tensorrt_rtx": "tensorrt_rtx"}  # what each flavour calls its tool


def command(
    flavour: str, recipe: Recipe, graph: Graph, inputs: Sequence[torch.Tensor], onnx: Path, *, graphed: bool
) -> str:
    """One line for a shell: no transfers, work queued ahead, the CUDA graph as the lowering has it."""
    parts = [NAMES[flavour], f"--onnx={onnx}", "--stronglyTyped", *_conditions(graphed)]
    if flavour == "tensorrt" and not recipe.tf32:
        parts.append("--noTF32")
    if recipe.level is not None:
        parts.append(f"--builderOptimizationLevel={recipe.level}")
    if recipe.workspace is not None:
        parts.append(f"--memPoolSize=workspace:{recipe.workspace}B")
    shapes = {name: "x".join(map(str, each.shape)) for name, each in zip(graph.inputs, inputs, strict=True)}
    if recipe.profile:
        for flag, place in (("min", 0), ("opt", 1), ("max", 2)):
            listed = ",".join(f"{name}:{'x'.join(map(str, each[place]))}" for name, each in recipe.profile.items())
            parts.append(f"--{flag}Shapes={listed}")
        parts.append("--shapes=" + ",".join(f"{name}:{shape}" for name, shape in shapes.items()))
    return shlex.join(parts)


def command_of_engine(flavour: str, path: Path, shapes: Mapping[str, tuple[int, ...]], *, graphed: bool) -> str:
    """The same for a ready engine."""
    listed = ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items())
    return shlex.join([NAMES[flavour], f"--loadEngine={path}", *_conditions(graphed), f"--shapes={listed}"])


def _conditions(graphed: bool) -> list[str]:
    """No transfers, work queued ahead, the CUDA graph as the lowering has it."""
    graph = "--useCudaGraph" if graphed else "--noCudaGraph"
    return ["--noDataTransfers", "--avgRuns=1", "--warmUp=1000", "--duration=10", graph]
