"""Attention of every position to every other (Vaswani et al., 2017; ViT's mixer, arXiv 2010.11929)."""

from torch import Tensor, nn

from mixprof.models.attention import attend, choose
from mixprof.models.layers import Formulated, require_heads, require_map


class GlobalAttention(Formulated):
    """Multi-head self-attention over all positions. (B, H, W, C) -> (B, H, W, C). It has no window."""

    def __init__(
        self, dim: int, resolution: tuple[int, int], window: int, heads: int, *, stage: int = 0, shifted: bool = False
    ):
        super().__init__()
        require_heads(dim, heads)
        self.dim, self.resolution, self.heads = dim, resolution, heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    @property
    def formulation(self) -> str:
        """What it currently runs, which for eager depends on the device."""
        keys = self.resolution[0] * self.resolution[1]
        return choose(self.override, self.lowering, self.qkv.weight.device, keys)

    def forward(self, x: Tensor) -> Tensor:
        require_map(x, self.resolution, self.dim)
        qkv = self.qkv(x.flatten(1, 2)).unflatten(-1, (3, self.heads, -1))  # (B, N, 3, heads, d)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)[:, :, None]  # each (B, 1, heads, N, d)
        mixed = attend(query, key, value, None, self.formulation)
        return self.proj(mixed).view(x.shape)
