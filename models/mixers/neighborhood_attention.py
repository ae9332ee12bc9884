"""Sliding-window attention: every position attends to its own KxK neighbours (cf. Hassani et al., arXiv 2204.07143).

Unlike NAT, whose windows move inwards at the border, neighbours outside the map are left out of the softmax.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixprof.models.aggregation import neighbours
from mixprof.models.attention import attend, choose
from mixprof.models.formulations import CPP
from mixprof.models.kernels.cpu import build
from mixprof.models.kernels.cpu import neighborhood_attention as cpp
from mixprof.models.layers import Formulated, pad_to, require_heads, require_map, require_odd, round_up
from mixprof.models.mixers.window_attention import to_windows

TILE = 8  # side of the square of queries that share one block of keys


class NeighborhoodAttention(Formulated):
    """Attend to the KxK neighbours of each position, K odd. (B, H, W, C) -> (B, H, W, C).

    "explicit" unfolds keys and values K*K times, one product per position. The others tile the map: the queries of
    a tile attend to the tile and a margin of K//2 around it, whose other keys the bias excludes.
    """

    bias: Tensor | None  # after specialize() of a tiled one: (tiles, heads, T*T, (T+K-1)^2)

    def __init__(
        self, dim: int, resolution: tuple[int, int], window: int, heads: int, *, stage: int = 0, shifted: bool = False
    ):
        super().__init__()
        require_heads(dim, heads)
        require_odd(window)
        self.dim, self.resolution, self.window, self.heads = dim, resolution, window, heads
        self.block = TILE + window - 1
        self.padded = (round_up(resolution[0], TILE), round_up(resolution[1], TILE))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.relative_position_bias = nn.Parameter(0.02 * torch.randn(heads, window**2))
        self.register_buffer("bias", None, persistent=False)

    @property
    def formulation(self) -> str:
        """What it currently runs, which for eager depends on the device."""
        return choose(self.override, self.lowering, self.qkv.weight.device, self.block**2)

    def specialize(self, lowering: str) -> None:
        """Compute the bias once instead of at each call, or build the kernel of ours, which takes it as it is."""
        self.lowering = lowering
        if self.formulation == CPP:
            build.library(cpp.NAME)
            return
        self.bias = self.tiled_bias().detach()

    def forward(self, x: Tensor) -> Tensor:
        require_map(x, self.resolution, self.dim)
        qkv = self.qkv(x)
        if self.lowering is not None and self.formulation == CPP:
            mixed = torch.ops.mixprof.neighborhood_attention(qkv, self.relative_position_bias, self.window)
            return self.proj(mixed)
        tiled = self.lowering is not None or self.formulation != "explicit"
        return self.proj(self.attend_tiles(qkv) if tiled else self.attend_neighbours(qkv))

    def attend_neighbours(self, qkv: Tensor) -> Tensor:
        """(B, H, W, 3C) -> (B, H, W, C), every position with keys of its own: a group of one query."""
        batch, height, width, _ = qkv.shape
        query, keyed = qkv.split((self.dim, 2 * self.dim), dim=-1)
        query = query.reshape(batch, height * width, self.heads, 1, -1)
        keyed = neighbours(keyed, self.window, 2 * self.heads).permute(0, 4, 1, 3, 2)  # (B, N, 2 * heads, K*K, d)
        key, value = keyed.chunk(2, dim=2)
        bias = self.relative_position_bias[None, :, None] + self.outside(qkv)  # (N, heads, 1, K*K)
        return attend(query, key, value, bias, "explicit").view(batch, height, width, self.dim)

    def outside(self, like: Tensor) -> Tensor:
        """-inf where a neighbour lies outside the map, else 0: (N, 1, 1, K*K)."""
        inside = neighbours(like.new_ones(1, *self.resolution, 1), self.window, 1)  # (1, 1, 1, K*K, N)
        return torch.zeros_like(inside).masked_fill(inside == 0, -torch.inf).permute(4, 0, 1, 3, 2).squeeze(4)

    def attend_tiles(self, qkv: Tensor) -> Tensor:
        """The same by tiles of T*T queries and blocks of (T+K-1)^2 keys."""
        qkv = pad_to(qkv, *self.padded)
        query, keyed = qkv.split((self.dim, 2 * self.dim), dim=-1)
        query = to_windows(query, TILE).unflatten(-1, (self.heads, -1)).transpose(2, 3)
        key, value = self.blocks(keyed).unflatten(-1, (2, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        bias = self.tiled_bias() if self.bias is None else self.bias
        mixed = attend(query, key, value, bias, self.formulation)  # (B, tiles, T*T, C)
        return self.join(mixed)

    def blocks(self, keyed: Tensor) -> Tensor:
        """Each tile with its margin, overlapping: (B, H', W', 2C) -> (B, tiles, (T+K-1)^2, 2C)."""
        margin = self.window // 2
        keyed = F.pad(keyed, (0, 0, margin, margin, margin, margin))
        keyed = keyed.unfold(1, self.block, TILE).unfold(2, self.block, TILE)  # (B, rows, columns, 2C, block, block)
        return keyed.flatten(4).transpose(3, 4).flatten(1, 2)

    def join(self, tiles: Tensor) -> Tensor:
        """(B, tiles, T*T, C) -> (B, H, W, C), cropped."""
        x = tiles.unflatten(2, (TILE, TILE)).unflatten(1, (-1, self.padded[1] // TILE)).transpose(2, 3)
        x = x.reshape(len(tiles), *self.padded, self.dim)
        return x[:, : self.resolution[0], : self.resolution[1]]

    def tiled_bias(self) -> Tensor:
        """The relative bias of each tap, -inf for a key of the block that is not a neighbour or not of the map."""
        device = self.qkv.weight.device
        near, tap = zip(*(self.axis(side, device) for side in self.resolution), strict=True)
        index = tap[0][:, None, :, None] * self.window + tap[1][None, :, None, :]  # (T, T, block, block)
        bias = self.relative_position_bias[:, index.flatten()].view(1, self.heads, TILE**2, self.block**2)
        allowed = near[0][:, None, :, None, :, None] & near[1][None, :, None, :, None, :]
        return bias.masked_fill(~allowed.reshape(-1, 1, TILE**2, self.block**2), -torch.inf)

    def axis(self, side: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Along one axis: whether a query attends to a key (tiles, T, block), and by which tap (T, block).

        Queries beyond the map, later cropped, attend to all their neighbours: a row of -inf alone would be NaN.
        """
        query, key = torch.arange(TILE, device=device), torch.arange(self.block, device=device)
        start = torch.arange(0, round_up(side, TILE), TILE, device=device)[:, None, None]
        tap = key - query[:, None]
        place = start + key - self.window // 2
        inside = (place >= 0) & (place < side) | (start + query[:, None] >= side)
        return inside & (tap >= 0) & (tap < self.window), tap.clamp(0, self.window - 1)
