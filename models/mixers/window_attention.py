"""Local attention in windows, plain or shifted: Swin's mixer (Liu et al., ICCV 2021, arXiv 2103.14030)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from mixprof.models.attention import attend, choose
from mixprof.models.formulations import CPP, TRITON
from mixprof.models.kernels.cpu import build
from mixprof.models.kernels.cpu import window_attention as cpp
from mixprof.models.kernels.triton.window_attention import require_fit, window_attention
from mixprof.models.layers import Formulated, pad_to, require_heads, require_map, round_up

MASKED = -100.0  # the published checkpoints' value between regions that only the shift brought together
ALIGNMENT = 8  # elements: fused attention on CUDA copies a bias whose rows do not start at multiples of it


class WindowAttention(Formulated):
    """Attend within non-overlapping windows. (B, H, W, C) -> (B, H, W, C).

    The map is zero-padded at the bottom and right to multiples of the window, and padded positions are attended to
    like any other. When shifted, the map is rolled by half a window along each axis that has more than one window.
    """

    relative_position_index: Tensor
    bias: Tensor | None  # after specialize(): (1 or windows, heads, K*K, K*K), bias and mask, its rows padded;
    # TRITON adds the mask itself
    order: Tensor | None  # after specialize("eager") of a shifted one: padded positions in window order
    inverse: Tensor | None  # and the place of each position of the map in that order

    def __init__(
        self, dim: int, resolution: tuple[int, int], window: int, heads: int, *, stage: int = 0, shifted: bool = False
    ):
        super().__init__()
        require_heads(dim, heads)
        self.dim, self.resolution, self.window, self.heads = dim, resolution, window, heads
        self.padded = (round_up(resolution[0], window), round_up(resolution[1], window))
        self.shift = tuple(window // 2 if shifted and side > window else 0 for side in self.padded)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(0.02 * torch.randn((2 * window - 1) ** 2, heads))
        self.register_buffer("relative_position_index", relative_position_index(window), persistent=False)
        for name in ("bias", "order", "inverse"):
            self.register_buffer(name, None, persistent=False)

    @property
    def formulation(self) -> str:
        """What it currently runs, which for eager depends on the device."""
        return choose(self.override, self.lowering, self.qkv.weight.device, self.window**2)

    def specialize(self, lowering: str) -> None:
        """Compute the bias and the order of positions once instead of at each call."""
        self.lowering = lowering
        if self.formulation == CPP:
            build.library("window_attention")
            self.bias = cpp.padded(self.bias_and_mask().detach())
            return
        if self.formulation == TRITON:
            require_fit(self.window)
        bias = (self.relative_position_bias() if self.formulation == TRITON else self.bias_and_mask()).detach()
        self.bias = functional.pad(bias, (0, -bias.shape[-1] % ALIGNMENT)).contiguous()
        if lowering == "eager" and any(self.shift) and self.formulation != TRITON:
            self.order, self.inverse = self.window_order()

    def forward(self, x: Tensor) -> Tensor:
        require_map(x, self.resolution, self.dim)
        if self.lowering is not None and self.formulation == CPP:
            where = (self.heads, self.window, *self.shift)
            return self.proj(torch.ops.mixprof.window_attention(self.qkv(x), self.qkv.bias, self.bias, *where))
        bias = self.bias_and_mask() if self.bias is None else self.bias[..., : self.window**2]
        if self.lowering is not None and self.formulation == TRITON:
            shift, padding = list(self.shift), self.qkv.bias
            return self.proj(window_attention(self.qkv(x), bias[0], padding, self.window, shift, MASKED))
        windows = self.partition(x)  # (B, windows, K*K, C)
        qkv = self.qkv(windows).unflatten(-1, (3, self.heads, -1))  # (B, windows, K*K, 3, heads, d)
        query, key, value = qkv.permute(3, 0, 1, 4, 2, 5)
        return self.merge(self.proj(attend(query, key, value, bias, self.formulation)))

    def partition(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, windows, K*K, C), shifted."""
        x = pad_to(x, *self.padded)
        if self.order is not None:
            return x.flatten(1, 2).index_select(1, self.order).unflatten(1, (-1, self.window**2))
        if any(self.shift):
            x = x.roll((-self.shift[0], -self.shift[1]), (1, 2))
        return to_windows(x, self.window)

    def merge(self, windows: Tensor) -> Tensor:
        """The way back: (B, windows, K*K, C) -> (B, H, W, C), unshifted and cropped."""
        (height, width), window = self.resolution, self.window
        if self.inverse is not None:
            return windows.flatten(1, 2).index_select(1, self.inverse).unflatten(1, self.resolution)
        x = windows.unflatten(2, (window, window)).unflatten(1, (-1, self.padded[1] // window))
        x = x.permute(0, 1, 3, 2, 4, 5).reshape(len(windows), *self.padded, self.dim)
        if any(self.shift):
            x = x.roll(self.shift, (1, 2))
        return x[:, :height, :width]

    def bias_and_mask(self) -> Tensor:
        """What is added to the logits, (1 or windows, heads, K*K, K*K)."""
        bias = self.relative_position_bias()
        return bias + self.mask(bias) if any(self.shift) else bias

    def relative_position_bias(self) -> Tensor:
        """The bias for each pair of positions in a window, (1, heads, K*K, K*K)."""
        index = self.relative_position_index
        return self.relative_position_bias_table[index.flatten()].unflatten(0, index.shape).permute(2, 0, 1)[None]

    def mask(self, like: Tensor) -> Tensor:
        """0 within and MASKED between regions that are neighbours only since the roll: (windows, 1, K*K, K*K)."""
        rows, columns = (axis_regions(*sides, self.window, like) for sides in zip(self.padded, self.shift, strict=True))
        regions = to_windows((3 * rows[:, None] + columns)[None, :, :, None], self.window)[0]  # (windows, K*K, 1)
        return (regions != regions.transpose(1, 2)).to(like.dtype)[:, None] * MASKED

    def window_order(self) -> tuple[Tensor, Tensor]:
        """Indices that do roll, partition and their inverses (with the crop) as one copy each way."""
        height, width = self.padded
        positions = torch.arange(height * width, device=self.qkv.weight.device).view(1, height, width, 1)
        rolled = positions.roll((-self.shift[0], -self.shift[1]), (1, 2))
        order = to_windows(rolled, self.window).flatten()
        inverse = order.argsort().view(height, width)[: self.resolution[0], : self.resolution[1]]
        return order, inverse.flatten()


def to_windows(x: Tensor, window: int) -> Tensor:
    """(B, H, W, C) -> (B, windows, K*K, C), windows row by row; H and W are multiples of the window."""
    batch, height, width, dim = x.shape
    x = x.view(batch, height // window, window, width // window, window, dim).transpose(2, 3)
    return x.reshape(batch, -1, window * window, dim)


def axis_regions(side: int, shift: int, window: int, like: Tensor) -> Tensor:
    """Which of three stretches each place of a rolled axis belongs to; the one that wrapped around is the last."""
    place = torch.arange(side, device=like.device)
    return (place >= side - window).long() + (place >= side - shift).long() if shift else torch.zeros_like(place)


def relative_position_index(window: int) -> Tensor:
    """The row of the bias table for each pair of positions in a window, (K*K, K*K): offsets counted row-major."""
    place = torch.arange(window)
    offset = place[:, None] - place + window - 1  # (K, K)
    index = offset[:, None, :, None] * (2 * window - 1) + offset[None, :, None, :]
    return index.reshape(window**2, window**2)
