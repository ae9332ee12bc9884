"""mixprof::depthwise: a depth-wise convolution and its ReLU in one pass, channels innermost, on a CPU."""

from math import isqrt

import torch
from torch import Tensor

from mixprof.models.kernels.cpu.build import LIBRARY, call

NAME = "depthwise"
LANES = 16  # channels side by side, at most
LIBRARY.define("depthwise(Tensor x, Tensor weight, Tensor bias) -> Tensor")


def depthwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """relu(x convolved with weight (B or 1, K*K, C), plus bias (C,)), zero-padded. (B, H, W, C) -> (B, H, W, C)."""
    if x.shape[3] % LANES:
        raise ValueError(f"got {x.shape[3]} channels, expected a multiple of {LANES}")
    out = _shape(x, weight, bias)
    call(NAME, (*x.shape, isqrt(weight.shape[1]), len(weight)), (x, weight, bias), out)
    return out


LIBRARY.impl("depthwise", depthwise, "CPU")


@torch.library.register_fake("mixprof::depthwise", lib=LIBRARY)
def _shape(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)
