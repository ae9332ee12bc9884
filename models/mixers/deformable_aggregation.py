"""Deformable aggregation, the operator of DCNv4 (Xiong et al., CVPR 2024, arXiv 2401.06197)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixprof.models.formulations import CPP
from mixprof.models.kernels.cpu import build
from mixprof.models.kernels.cpu import deformable as cpp
from mixprof.models.layers import Formulated, require_heads, require_map, require_odd


class DeformableAggregation(Formulated):
    """Weighted samples of the map at K*K places that each position moves. (B, H, W, C) -> (B, H, W, C); K odd.

    out[p, head] = Linear(sum_t m_t value[p + p_t + offset_t, head]), bilinear, zeros outside; offsets (x, y) and the
    weights m, which no softmax norms, are Linear in x, in this order for each head. Places are computed in float32.
    "gather" reads four neighbours of each sample and multiplies once; "grid_sample" samples first.
    """

    def __init__(
        self, dim: int, resolution: tuple[int, int], window: int, heads: int, *, stage: int = 0, shifted: bool = False
    ):
        super().__init__()
        require_heads(dim, heads)
        require_odd(window)
        self.dim, self.resolution, self.window, self.heads = dim, resolution, window, heads
        self.value = nn.Linear(dim, dim)
        self.offset_mask = nn.Linear(dim, heads * window**2 * 3)
        self.proj = nn.Linear(dim, dim)

    @property
    def formulation(self) -> str:
        """What it currently runs; without a lowering, what counters know."""
        if self.lowering is None:
            return self.override if self.override not in (None, CPP) else "gather"
        return self.override or "grid_sample"

    def specialize(self, lowering: str) -> None:
        """Build the kernel, where it is one of ours."""
        super().specialize(lowering)
        if self.formulation == CPP:
            build.library(cpp.NAME)

    def forward(self, x: Tensor) -> Tensor:
        require_map(x, self.resolution, self.dim)
        taps = self.window**2
        if self.formulation == CPP:
            operands = (self.value(x), self.offset_mask(x), self.heads, self.window)
            return self.proj(torch.ops.mixprof.deformable(*operands))
        offset, mask = self.offset_mask(x).unflatten(-1, (self.heads, -1)).split((2 * taps, taps), dim=-1)
        place = self.places(offset.unflatten(-1, (taps, 2)))
        mix = self.gathered if self.formulation == "gather" else self.sampled
        return self.proj(mix(self.value(x), place, mask))

    def places(self, offset: Tensor) -> Tensor:
        """Columns and rows, in positions of the map, that are sampled: (B, H, W, heads, K*K, 2), float32 or wider."""
        dtype = torch.promote_types(offset.dtype, torch.float32)  # 16 bits do not tell neighbours of a large map apart
        height, width = self.resolution
        column, row, tap = (torch.arange(n, device=offset.device, dtype=dtype) for n in (width, height, self.window))
        margin = self.window // 2
        columns = (column.view(1, -1, 1, 1) + (tap - margin)).expand(height, -1, self.window, -1)
        rows = (row.view(-1, 1, 1, 1) + (tap - margin)[:, None]).expand(-1, width, -1, self.window)
        return offset.to(dtype) + torch.stack((columns, rows), dim=-1).flatten(2, 3).unsqueeze(2)

    def gathered(self, value: Tensor, place: Tensor, mask: Tensor) -> Tensor:
        """One (1 x 4*K*K) by (4*K*K x C/heads) product per position and head."""
        corner = torch.arange(4, device=place.device)
        corners = place.floor().unsqueeze(-2) + torch.stack((corner % 2, corner // 2), dim=-1)  # (.., K*K, 4, 2)
        weights = (1 - (corners - place.unsqueeze(-2)).abs()).prod(dim=-1)  # (B, H, W, heads, K*K, 4)
        column, row = corners.long().unbind(dim=-1)
        height, width = self.resolution
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        weights = (weights * inside).to(mask.dtype) * mask.unsqueeze(-1)
        positions = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
        image = torch.arange(len(value), device=value.device).view(-1, 1, 1, 1, 1, 1) * (height * width)
        head = torch.arange(self.heads, device=value.device).view(1, 1, 1, -1, 1, 1)
        index = ((image + positions) * self.heads + head).flatten(-2)  # (B, H, W, heads, K*K*4), rows of the next
        samples = value.reshape(-1, self.dim // self.heads)[index]
        return (weights.flatten(-2).unsqueeze(-2) @ samples).view(value.shape)

    def sampled(self, value: Tensor, place: Tensor, mask: Tensor) -> Tensor:
        """Every sample first, K*K times the map; then the weighted sum of them."""
        height, width = self.resolution
        column, row = ((2 * axis + 1) / side - 1 for axis, side in zip(place.unbind(-1), (width, height), strict=True))
        grid = torch.stack((column, row), dim=-1)  # the map's edges at -1 and 1
        grid = grid.permute(0, 3, 1, 2, 4, 5).reshape(-1, height * width, self.window**2, 2)
        maps = value.unflatten(-1, (self.heads, -1)).permute(0, 3, 4, 1, 2).flatten(0, 1)  # (B * heads, d, H, W)
        samples = F.grid_sample(maps.to(grid.dtype), grid, align_corners=False).to(
            value.dtype
        )  # (B * heads, d, N, K*K)
        weights = mask.permute(0, 3, 1, 2, 4).reshape(len(grid), 1, height * width, -1)
        mixed = (samples * weights).sum(dim=-1).unflatten(0, (len(value), -1))  # (B, heads, d, N)
        return mixed.permute(0, 3, 1, 2).reshape(value.shape)
