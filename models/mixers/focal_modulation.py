"""Focal modulation, the mixer of FocalNet (Yang et al., NeurIPS 2022, arXiv 2203.11926)."""

import torch.nn.functional as F
from torch import Tensor, nn

from mixprof.models.layers import AnySize, channels_first, channels_last, require_map

KERNELS = (3, 5, 7)  # of the focal levels, from the finest: FocalNet's large receptive field (LRF)


class FocalModulation(AnySize):
    """Modulate a query by gated contexts of growing reach. (B, H, W, C) -> (B, H, W, C). It has no window.

    z_0 = Linear(x), z_l = GELU(depth-wise_l(z_{l-1})), and a last level z that is GELU(mean of z_L over positions);
    out = Linear(q(x) * h(sum_l gate_l(x) * z_l)), q, h and gates Linear. Query, context and gates, one layer in the
    paper, are three with the same parameters.
    """

    formulation = "conv"

    def __init__(
        self, dim: int, resolution: tuple[int, int], window: int, heads: int, *, stage: int = 0, shifted: bool = False
    ):
        super().__init__()
        self.dim, self.resolution = dim, resolution
        self.query, self.context = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.gates = nn.Linear(dim, len(KERNELS) + 1)
        self.levels = nn.ModuleList(
            nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim, bias=False) for kernel in KERNELS
        )
        self.modulator = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        require_map(x, self.resolution, self.dim)
        gates, context = self.gates(x).unsqueeze(-1), self.context(x)
        total = 0.0
        for level, conv in enumerate(self.levels):
            context = F.gelu(channels_last(conv(channels_first(context))))
            total = total + context * gates[..., level, :]
        total = total + F.gelu(context.mean((1, 2), keepdim=True)) * gates[..., -1, :]
        return self.proj(self.query(x) * self.modulator(total))
