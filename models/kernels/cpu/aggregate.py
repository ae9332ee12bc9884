"""mixprof::aggregate: weighted sums over every position's neighbours with weights of its own, on a CPU."""

from math import isqrt

import torch
from torch import Tensor

from mixprof.models.kernels.cpu.build import LIBRARY, call

NAME = "aggregate"
CHANNELS = 32  # of a group: a multiple of it
LIBRARY.define("aggregate(Tensor x, Tensor weights) -> Tensor")


def aggregate(x: Tensor, weights: Tensor) -> Tensor:
    """sum over t of weights (B or 1, G, H*W, K*K) times x (B, H, W, C) shifted by t, zeros outside: (B, H, W, C).

    Channel c takes the weights of group c // (C/G). ValueError for groups of other than a multiple of 32 channels.
    """
    if x.shape[3] % (weights.shape[1] * CHANNELS):
        raise ValueError(
            f"got {x.shape[3]} channels in {weights.shape[1]} groups, expected a multiple of {CHANNELS} in each"
        )
    out = _shape(x, weights)
    shape = (*x.shape, weights.shape[1], isqrt(weights.shape[3]), len(weights))
    call(NAME, shape, (x, weights), out)
    return out


LIBRARY.impl("aggregate", aggregate, "CPU")


@torch.library.register_fake("mixprof::aggregate", lib=LIBRARY)
def _shape(x: Tensor, weights: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)
