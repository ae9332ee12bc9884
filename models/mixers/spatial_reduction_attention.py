"""Attention to a reduced map: PVT's mixer (Wang et al., ICCV 2021, arXiv 2102.12122)."""

from torch import Tensor, nn

from mixprof.models.attention import attend, choose
from mixprof.models.layers import (
    Formulated,
    channels_first,
    channels_last,
    pad_to,
    require_heads,
    require_map,
    round_up,
)

REDUCTIONS = (8, 4, 2, 1)  # per stage


class SpatialReductionAttention(Formulated):
    """Attend to keys and values of a map reduced by R along both axes. (B, H, W, C) -> (B, H, W, C). It has no window.

    The map is zero-padded at the bottom and right to a multiple of R before the reducing convolution.
    """

    def __init__(
        self, dim: int, resolution: tuple[int, int], window: int, heads: int, *, stage: int = 0, shifted: bool = False
    ):
        super().__init__()
        require_heads(dim, heads)
        self.dim, self.resolution, self.heads = dim, resolution, heads
        self.reduction = REDUCTIONS[stage]
        self.padded = (round_up(resolution[0], self.reduction), round_up(resolution[1], self.reduction))
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        if self.reduction > 1:
            self.sr = nn.Conv2d(dim, dim, self.reduction, stride=self.reduction)
            self.norm = nn.LayerNorm(dim)

    @property
    def formulation(self) -> str:
        """What it currently runs, which for eager depends on the device."""
        keys = self.padded[0] * self.padded[1] // self.reduction**2
        return choose(self.override, self.lowering, self.q.weight.device, keys)

    def forward(self, x: Tensor) -> Tensor:
        require_map(x, self.resolution, self.dim)
        query = self.q(x.flatten(1, 2)).unflatten(-1, (self.heads, -1)).transpose(1, 2)[:, None]
        keyed = self.kv(self.reduce(x)).unflatten(-1, (2, self.heads, -1))  # (B, M, 2, heads, d)
        key, value = keyed.permute(2, 0, 3, 1, 4)[:, :, None]  # each (B, 1, heads, M, d)
        mixed = attend(query, key, value, None, self.formulation)
        return self.proj(mixed).view(x.shape)

    def reduce(self, x: Tensor) -> Tensor:
        """The positions that are attended to: (B, H, W, C) -> (B, M, C)."""
        if self.reduction == 1:
            return x.flatten(1, 2)
        reduced = channels_last(self.sr(channels_first(pad_to(x, *self.padded))))
        return self.norm(reduced.flatten(1, 2))
