"""Our kernels of a depth-wise convolution with the ReLU behind it, by formulation."""

from collections.abc import Callable

import torch
from torch import Tensor

from mixprof.models.formulations import CPP, TRITON
from mixprof.models.kernels.cpu import build
from mixprof.models.kernels.cpu import depthwise as cpu
from mixprof.models.kernels.triton import depthwise as triton


def _cpp(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mixprof.depthwise(x, weight, x.new_zeros(x.shape[3]) if bias is None else bias)


def _triton(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return triton.depthwise(x, weight, bias, True)


# x (B, H, W, C), weight (B or 1, K*K, C), bias (C,) -> (B, H, W, C)
KERNELS: dict[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {CPP: _cpp, TRITON: _triton}
BUILT = {CPP: cpu.NAME}


def prepare(formulation: str) -> None:
    """Build what a formulation needs, before anything runs. ValueError where that is not possible."""
    if formulation in BUILT:
        build.library(BUILT[formulation])
