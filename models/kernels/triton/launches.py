"""A kernel with all that one launch of it is given: what runs on a device is what is compiled ahead without one."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]  # by parameter of a kernel
FOLDER = "mixprof.models.kernels.triton"


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel. Sizes are constants of the kernel: each shape is compiled for itself."""

    kernel: str  # "file.function"
    grid: tuple[int, ...]  # programs along each axis
    tensors: Tensors  # a parameter that is not among them gets None, which makes another kernel
    constants: Mapping[str, int | float | bool | str]
    warps: int = 4
    stages: int = 2
    outputs: frozenset[str] = field(default=frozenset({"out"}))  # of the tensors, those that it writes

    def function(self) -> Any:
        """The kernel itself. ImportError without the package triton."""
        file, _, function = self.kernel.partition(".")
        return getattr(importlib.import_module(f"{FOLDER}.{file}"), function)

    def run(self) -> None:
        """Launch it on the current stream of the tensors' device."""
        function, options = self.function(), {"num_warps": self.warps, "num_stages": self.stages}
        absent = dict.fromkeys(set(function.arg_names) - set(self.tensors) - set(self.constants))
        function[self.grid](**self.tensors, **absent, **self.constants, **options)


def present(tensors: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    """Those that are there."""
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def cover(length: int, block: int) -> int:
    """How many blocks cover a length."""
    return -(-length // block)


def power_of_two(length: int, least: int = 1) -> int:
    """The smallest power of two that is not below a length: what a block's side must be."""
    return max(least, 1 << (length - 1).bit_length())


def precision() -> str:
    """How products of float32 are made: as torch's own are, in TF32 only where it is on."""
    matmul = torch.backends.cuda.matmul
    new = getattr(matmul, "fp32_precision", None)  # from torch 2.9 on; where it was set, the old name raises
    return "tf32" if (matmul.allow_tf32 if new is None else new == "tf32") else "ieee"


def sums_of(tensor: Tensor) -> torch.dtype:
    """The dtype that a kernel adds up a tensor's values in."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
