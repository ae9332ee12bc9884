"""ReLU linear attention, EfficientViT's global mixer (Cai et al., ICCV 2023, arXiv 2205.14756)."""

import torch.nn.functional as F
from torch import Tensor, nn

from mixprof.models.layers import AnySize, Formulated, require_heads, require_map

EPSILON = 1e-6  # beside a mean of scores of about 1 to 10: a query that no key answers gives 0, not 0 / 0


class LinearAttention(AnySize, Formulated):
    """out_i = sum_j s_ij v_j / sum_j s_ij with s_ij = relu(q_i) . relu(k_j), per head. (B, H, W, C) -> (B, H, W, C).

    "linear" takes relu(k)^T v first, N d^2 for N positions; "quadratic" the scores, N^2 d, which is less on maps of
    fewer positions than a head has channels. The paper's multi-scale tokens (a convolution of q, k, v) are left out.
    """

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
        """How the products are associated."""
        return self.override or "linear"

    def forward(self, x: Tensor) -> Tensor:
        require_map(x, self.resolution, self.dim)
        qkv = self.qkv(x.flatten(1, 2)).unflatten(-1, (3, self.heads, -1))  # (B, N, 3, heads, d)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, N, d)
        # Means instead of sums over positions: the quotient is the same, and float16 holds them.
        query, key = F.relu(query), F.relu(key) / key.shape[2]
        if self.formulation == "quadratic":
            mixed = self.quadratic(query, key, value)
        else:
            # A row of ones gives the sum of scores in the same product.
            sums = key.transpose(2, 3) @ F.pad(value, (0, 1), value=1.0)  # (B, heads, d, d + 1)
            numerator, total = (query @ sums).split((value.shape[-1], 1), dim=-1)
            mixed = numerator / (total + EPSILON)
        return self.proj(mixed.transpose(1, 2).reshape(x.shape))

    @staticmethod
    def quadratic(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Every score of a query and a key first. (B, heads, N, d) each, and so the result."""
        scores = query @ key.transpose(2, 3)
        return (scores @ value) / (scores.sum(dim=-1, keepdim=True) + EPSILON)
