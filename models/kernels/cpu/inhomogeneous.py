"""mixprof::inhomogeneous: kernels predicted per position and applied there in one pass, on a CPU."""

import torch
from torch import Tensor

from mixprof.models.kernels.cpu.build import LIBRARY, call

GROUPS = 32  # kernels per position: what the C++ is compiled for
MOST_TAPS = 64  # in a row
LIBRARY.define(
    "inhomogeneous(Tensor x, Tensor reduce, Tensor reduce_bias, Tensor weight, Tensor bias, Tensor scale, Tensor shift,"
    " int window) -> Tensor"
)


def inhomogeneous(
    x: Tensor,
    reduce: Tensor,
    reduce_bias: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor,
    shift: Tensor,
    window: int,
) -> Tensor:
    """relu(scale * (sum over t of (hidden @ weight[t] + bias[t]) * x shifted by t) + shift). -> (B, H, W, C).

    hidden = relu(x @ reduce + reduce_bias). x (B, H, W, C) with channels as (C/G, group); reduce as panels() has it;
    weight (K*K, J, G), bias (K*K, G), scale and shift (C,). Sums are float32 or float64. ValueError for another dtype.
    """
    if x.shape[3] % GROUPS or window > MOST_TAPS:
        raise ValueError(
            f"got {x.shape[3]} channels, window={window}, expected a multiple of {GROUPS}, at most {MOST_TAPS}"
        )
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    operands = (x, reduce, reduce_bias, weight, bias, scale, shift)
    call("inhomogeneous", (*x.shape, weight.shape[1], window), operands, out)
    return out


LIBRARY.impl("inhomogeneous", inhomogeneous, "CPU")


@torch.library.register_fake("mixprof::inhomogeneous", lib=LIBRARY)
def _shape(x: Tensor, *_: object) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)
