"""Static, locally connected weights: local attention without the dependence on the input (arXiv 2106.04263)."""

import torch
from torch import Tensor, nn

from mixprof.models.aggregation import Aggregating
from mixprof.models.aggregation_backward import FORMULATIONS
from mixprof.models.formulations import CPP
from mixprof.models.layers import require_heads, require_map, require_odd


class LocalMlp(Aggregating):
    """out[y, x, c] = sum_t weight[y, x, t, head(c)] value[neighbour t, c], zeros outside, K odd.

    (B, H, W, C) -> (B, H, W, C).
    """

    def __init__(
        self, dim: int, resolution: tuple[int, int], window: int, heads: int, *, stage: int = 0, shifted: bool = False
    ):
        super().__init__()
        require_heads(dim, heads)
        require_odd(window)
        self.dim, self.resolution, self.window = dim, resolution, window
        self.value = nn.Linear(dim, dim)
        self.weight = nn.Parameter(torch.randn(*resolution, window**2, heads) / window)
        self.proj = nn.Linear(dim, dim)

    def specialize(self, lowering: str) -> None:
        """Lay the weights out for the kernel of ours, heads first, where that is what runs."""
        super().specialize(lowering)
        if self.formulation == CPP:
            laid_out = self.weight.detach().permute(3, 0, 1, 2).contiguous().permute(1, 2, 3, 0)
            self.weight = nn.Parameter(laid_out, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        require_map(x, self.resolution, self.dim)
        mixed = FORMULATIONS[self.formulation](self.value(x), self.weight[None], self.window)
        return self.proj(mixed)
