"""mixprof::directional_scan: a selective scan along rows and columns, both ways, in one pass each, on a CPU."""

import torch
from torch import Tensor

from mixprof.models.kernels.cpu.build import LIBRARY, call

NAME = "directional_scan"
LANES = 16  # channels side by side, at most
LIBRARY.define(
    "directional_scan(Tensor x, Tensor low, Tensor states, Tensor weight, Tensor bias, Tensor rate, Tensor skip)"
    " -> Tensor"
)


def directional_scan(
    x: Tensor, low: Tensor, states: Tensor, weight: Tensor, bias: Tensor, rate: Tensor, skip: Tensor
) -> Tensor:
    """sum over directions d of readout h + skip[d] x, h = exp(-delta exp(rate[d])) h before it + delta entry x.

    delta = softplus(low[d] @ weight[d] + bias[d]). x (B, H, W, C); low (B, H, W, 4R); states (B, H, W, 8), entries and
    readouts; weight (4, R, C); bias, rate and skip (4, C). Directions: rows, columns, both from the end.
    """
    if x.shape[3] % LANES:
        raise ValueError(f"got {x.shape[3]} channels, expected a multiple of {LANES}")
    out = _shape(x, low, states, weight, bias, rate, skip)
    call(NAME, (*x.shape, weight.shape[1]), (x, low, states, weight, bias, rate, skip), out)
    return out


LIBRARY.impl("directional_scan", directional_scan, "CPU")


@torch.library.register_fake("mixprof::directional_scan", lib=LIBRARY)
def _shape(x: Tensor, low: Tensor, states: Tensor, weight: Tensor, bias: Tensor, rate: Tensor, skip: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)
