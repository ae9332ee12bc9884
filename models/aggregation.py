"""Weighted sums over the KxK neighbours of every position, zeros outside the map; equal in value.

Weights are (B or 1, H, W, K*K, G): tap t = dy*K + dx counts row-major from the top left, and channel c of the map
(B, H, W, C) takes the weights of group c // (C/G).
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from models.layers import channels_first, channels_last

AGGREGATION_OF_LOWERING = {
    "eager": "shift",
    "compile": "shift",
    "onnxruntime": "shift",
    "tensorrt": "unfold_sum",
    "tensorrt_rtx": "unfold_sum",
}


def choose(override: str | None, lowering: str | None) -> str:
    """The formulation to run: the override, else what suits the lowering; without one, what counters know."""
    return override or ("matmul" if lowering is None else AGGREGATION_OF_LOWERING[lowering])


def neighbours(x: Tensor, window: int, groups: int) -> Tensor:
    """All neighbours side by side, K*K times the map: (B, H, W, C) -> (B, G, C/G, K*K, H*W)."""
    taps = F.unfold(channels_first(x), window, padding=window // 2)  # (B, C * K*K, H*W)
    return taps.view(len(x), groups, -1, window**2, taps.shape[-1])


def matmul(x: Tensor, weights: Tensor, window: int) -> Tensor:
    """Unfold, then one (1 x K*K) by (K*K x C/G) product per position and group."""
    weights = weights.flatten(1, 2).transpose(2, 3)[:, :, :, None]  # (B, N, G, 1, K*K)
    mixed = weights @ neighbours(x, window, weights.shape[2]).permute(0, 4, 1, 3, 2)  # (B, N, G, 1, C/G)
    return mixed.reshape(x.shape)


def unfold_sum(x: Tensor, weights: Tensor, window: int) -> Tensor:
    """Unfold, multiply, sum over taps: TensorRT fuses it whole; anywhere else it is the slowest."""
    weights = weights.permute(0, 4, 3, 1, 2).flatten(3)[:, :, None]  # (B, G, 1, K*K, N)
    mixed = (neighbours(x, window, weights.shape[1]) * weights).sum(dim=3)  # (B, G, C/G, N)
    return channels_last(mixed.view(len(x), x.shape[3], x.shape[1], x.shape[2]))


def shift(x: Tensor, weights: Tensor, window: int) -> Tensor:
    """Shift and accumulate: nothing larger than the map is made."""
    rows = weights.unflatten(3, (window, window))[..., None]  # (B, H, W, K, K, G, 1)
    total = x.new_zeros(x.shape).unflatten(3, (weights.shape[-1], -1))
    return shift_rows(x, lambda row: rows[:, :, :, row], total, window)


def shift_rows(x: Tensor, weights_of_row: Callable[[int], Tensor], total: Tensor, window: int) -> Tensor:
    """Add to `total`, in place, the neighbours of one kernel row after the other.

    total: (B, H, W, O, I), any split of the channels C = O * I; weights_of_row(dy): those of the taps dy*K + dx,
    (B or 1, H, W, K, O or 1, I or 1). Returns (B, H, W, C).
    """
    height, width, margin = x.shape[1], x.shape[2], window // 2
    padded = F.pad(x, (0, 0, margin, margin, margin, margin)).unflatten(3, total.shape[3:])
    for row in range(window):
        weights = weights_of_row(row)
        for column in range(window):
            total.addcmul_(padded[:, row : row + height, column : column + width], weights[:, :, :, column])
    return total.flatten(3)


FORMULATIONS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "matmul": matmul,
    "shift": shift,
    "unfold_sum": unfold_sum,
}
