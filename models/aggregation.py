"""Weighted sums over the KxK neighbours of every position, zeros outside the map; equal in value.

Weights are (B or 1, H, W, K*K, G): tap t = dy*K + dx counts row-major from the top left, and channel c of the map
(B, H, W, C) takes the weights of group c // (C/G).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mixprof.models.formulations import CPP, OWN
from mixprof.models.kernels.cpu import aggregate as cpu
from mixprof.models.kernels.cpu import build
from mixprof.models.layers import Formulated, channels_first, channels_last

Rows = Callable[[Tensor, Callable[[int], Tensor], Tensor, int], Tensor]

AGGREGATION_OF_LOWERING = {
    "eager": "shift",
    "compile": "shift",
    "onnxruntime": "unfold_rows",
    "tensorrt": "unfold_sum",
    "tensorrt_rtx": "unfold_sum",
}
OWN_BACKWARD = "shift_own_backward"  # in training: see aggregation_backward.py


def choose(override: str | None, lowering: str | None, *, training: bool) -> str:
    """The formulation to run: the override, else what suits the lowering; without one, what counters know."""
    if lowering is not None:
        return override or AGGREGATION_OF_LOWERING[lowering]
    published = OWN_BACKWARD if training else "matmul"
    return published if override is None or override in OWN else override


class Aggregating(Formulated):
    """A mixer whose kernels of every position exist before they are applied."""

    @property
    def formulation(self) -> str:
        """How positions are aggregated."""
        return choose(self.override, self.lowering, training=self.training)

    def specialize(self, lowering: str) -> None:
        """Build the kernel, where it is one of ours."""
        super().specialize(lowering)
        if self.formulation == CPP:
            build.library(cpu.NAME)


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
    return by_rows(shift_rows, x, weights, window)


def unfold_rows(x: Tensor, weights: Tensor, window: int) -> Tensor:
    """Unfold along the rows alone, K times the map; then multiply and sum, one row of taps after the other."""
    return by_rows(sum_rows, x, weights, window)


def by_rows(accumulate: Rows, x: Tensor, weights: Tensor, window: int) -> Tensor:
    """Run an accumulation over rows of taps with weights that all exist already."""
    rows = weights.unflatten(3, (window, window))[..., None]  # (B, H, W, K, K, G, 1)
    total = x.new_zeros(x.shape).unflatten(3, (weights.shape[-1], -1))
    return accumulate(x, lambda row: rows[:, :, :, row], total, window)


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


def sum_rows(x: Tensor, weights_of_row: Callable[[int], Tensor], total: Tensor, window: int) -> Tensor:
    """What shift_rows() returns, in few operations: K per map rather than K*K, for graphs that are built of them."""
    height, width, margin = x.shape[1], x.shape[2], window // 2
    padded = F.pad(x, (0, 0, margin, margin, margin, margin)).unflatten(3, total.shape[3:])
    columns = torch.stack([padded[:, :, start : start + width] for start in range(window)], dim=3)  # (.., K, O, I)
    for row in range(window):
        total = total + (columns[:, row : row + height] * weights_of_row(row)).sum(dim=3)
    return total.flatten(3)


def shift_flat(x: Tensor, weights: Tensor, window: int) -> Tensor:
    """Shift and accumulate in maps whose padded rows run on into one another: a shift is then one offset."""
    flat = flat_rows(weights.permute(0, 3, 4, 1, 2).flatten(1, 2), window).unflatten(1, (window, window, -1, 1))
    total = x.new_zeros(len(x), flat.shape[3], x.shape[-1] // flat.shape[3], flat.shape[-1])
    return shift_flat_rows(x, lambda row: flat[:, row], total, window)


def flat_rows(x: Tensor, window: int) -> Tensor:
    """(B, C, H, W) -> (B, C, H * (W + K - 1)), dense: K - 1 places follow each row, whose sums are cropped later."""
    return F.pad(x, (0, window - 1)).contiguous().flatten(2)


def shift_flat_rows(x: Tensor, weights_of_row: Callable[[int], Tensor], total: Tensor, window: int) -> Tensor:
    """Add to `total` (B, G, C/G, M), in place, the neighbours of one kernel row after the other; M as in flat_rows().

    weights_of_row(dy): those of the taps dy*K + dx, (B or 1, K, G, 1, M). Each addition runs over M dense places
    rather than over the G of one position. (B, H, W, C) -> (B, H, W, C), a view.
    """
    (batch, height, width, dim), margin = x.shape, window // 2
    wide = width + window - 1
    padded = x.new_zeros(batch, dim, height + window, wide)  # a row more than the taps reach: the last shifts run over
    padded[:, :, margin : margin + height, margin : margin + width] = channels_first(x)
    padded = padded.view(*total.shape[:3], -1)
    for row in range(window):
        weights = weights_of_row(row)
        for column in range(window):
            start = row * wide + column
            total.addcmul_(padded[..., start : start + height * wide], weights[:, column])
    return channels_last(total.view(batch, dim, height, wide)[..., :width])


def in_cpp(x: Tensor, weights: Tensor, window: int) -> Tensor:
    """In a kernel of our own, without a copy of weights that lie as (B or 1, G, H, W, K*K) already."""
    return torch.ops.mixprof.aggregate(x, weights.flatten(1, 2).permute(0, 3, 1, 2))


ROWS: dict[str, Rows] = {"shift": shift_rows, "unfold_rows": sum_rows}

FORMULATIONS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "matmul": matmul,
    "shift": shift,
    "shift_flat": shift_flat,
    "unfold_rows": unfold_rows,
    "unfold_sum": unfold_sum,
    CPP: in_cpp,
}
