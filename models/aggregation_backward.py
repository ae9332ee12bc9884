"""The weighted sum over neighbours with a backward of its own: neither pass makes anything K*K times the map.

Autograd's backward of the unfolded products keeps the unfolded map and makes its gradient, and that of shifts makes a
gradient of all weights for every tap. Here the weights are laid out by taps, once, and each tap adds its part of the
map's gradient and writes its own weights'. Maps are (C/G, B, H, W, G) in between: groups are dense, as in the weights.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mixprof.models.aggregation import FORMULATIONS as PLAIN
from mixprof.models.aggregation import OWN_BACKWARD, matmul


def aggregate(x: Tensor, weights: Tensor, window: int) -> Tensor:
    """Sum over neighbours, shapes as in aggregation.py. On meta, for counters, and in float64, for references, as
    the products that define it."""
    if x.is_meta or x.dtype == torch.float64:
        return matmul(x, weights, window)
    mixed: Tensor = Aggregate.apply(x, weights.to(x.dtype), window)
    return mixed


class Aggregate(torch.autograd.Function):
    """The sum by shifts, saving the map and the weights alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor, window: int) -> Tensor:
        """(B, H, W, C), (B or 1, H, W, K*K, G) -> (B, H, W, C)."""
        by_taps = weights.permute(3, 0, 1, 2, 4).contiguous()  # (K*K, B or 1, H, W, G)
        ctx.save_for_backward(x, by_taps)
        ctx.window = window
        padded = _padded(x, by_taps.shape[-1], window // 2)
        total = padded.new_zeros(len(padded), *x.shape[:3], by_taps.shape[-1], dtype=_wide(x))
        for tap, near in enumerate(_shifts(padded, total.shape, window)):
            total.addcmul_(near, by_taps[tap])
        return _joined(total, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """The gradients of map and weights, each where it is wanted."""
        x, by_taps = ctx.saved_tensors
        to_map, to_weights = ctx.needs_input_grad[:2]
        split = _padded(gradient, by_taps.shape[-1], 0)  # (C/G, B, H, W, G)
        return (
            _joined(of_map(split, by_taps, ctx.window), x) if to_map else None,
            of_weights(split, x, by_taps, ctx.window) if to_weights else None,
            None,
        )


def of_map(gradient: Tensor, by_taps: Tensor, window: int) -> Tensor:
    """Each position sends its gradient, weighted, to the neighbours that it summed: (C/G, B, H, W, G)."""
    (rest, batch, height, width, groups), margin = gradient.shape, window // 2
    sides = (height + 2 * margin, width + 2 * margin)
    total = gradient.new_zeros(rest, batch, *sides, groups, dtype=_wide(gradient))
    for tap, near in enumerate(_shifts(total, gradient.shape, window)):
        near.addcmul_(gradient, by_taps[tap])
    return total[:, :, margin : margin + height, margin : margin + width]


def of_weights(gradient: Tensor, x: Tensor, by_taps: Tensor, window: int) -> Tensor:
    """What each tap met, times the gradient, summed over the channels that share it: (B or 1, H, W, K*K, G)."""
    made = torch.empty_like(by_taps)
    shared = (0, 1) if by_taps.shape[1] < len(x) else (0,)  # over images, too, where weights are the same for all
    product = torch.empty_like(gradient)
    for tap, near in enumerate(_shifts(_padded(x, by_taps.shape[-1], window // 2), gradient.shape, window)):
        torch.mul(gradient, near, out=product)
        made[tap] = product.sum(dim=shared)
    return made.permute(1, 2, 3, 0, 4)


def _padded(x: Tensor, groups: int, margin: int) -> Tensor:
    """(B, H, W, C) -> (C/G, B, H + 2 margin, W + 2 margin, G), dense, zeros around."""
    split = x.unflatten(3, (groups, -1)).permute(4, 0, 1, 2, 3)
    return F.pad(split, (0, 0, margin, margin, margin, margin)).contiguous()


def _shifts(padded: Tensor, shape: torch.Size, window: int) -> Iterator[Tensor]:
    """The part of a padded map (C/G, B, H + K - 1, W + K - 1, G) that each tap meets, a view of this shape."""
    for row in range(window):
        for column in range(window):
            yield padded[:, :, row : row + shape[2], column : column + shape[3]]


def _joined(split: Tensor, like: Tensor) -> Tensor:
    """(C/G, B, H, W, G) -> (B, H, W, C), in a dtype."""
    return split.to(like.dtype).permute(1, 2, 3, 4, 0).reshape(like.shape)


def _wide(x: Tensor) -> torch.dtype:
    """The dtype to add K*K terms in: half precision would lose them."""
    return torch.promote_types(x.dtype, torch.float32)


FORMULATIONS = {**PLAIN, OWN_BACKWARD: aggregate}
