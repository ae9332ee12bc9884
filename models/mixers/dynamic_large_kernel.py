"""Context-mixing dynamic convolution, ContMix of OverLoCK (Lou and Yu, CVPR 2025, arXiv 2502.20087)."""

import torch.nn.functional as F
from torch import Tensor, nn

from mixprof.models.aggregation import Aggregating
from mixprof.models.aggregation_backward import FORMULATIONS
from mixprof.models.layers import channels_first, channels_last, require_heads, require_map, require_odd

REGIONS = 7  # along a side: the map's means over this square of regions are the keys


class DynamicLargeKernel(Aggregating):
    """A KxK kernel per position and head from its affinities to regions of the whole map. (B, H, W, C) -> (B, H, W, C).

    kernel = softmax over taps of Linear(q . k of the 7x7 regions); it is applied to x itself, zeros outside, K odd.
    The paper's block mixes heads of two kernel sizes, with norms in its projections; here all have the window's.
    """

    def __init__(
        self, dim: int, resolution: tuple[int, int], window: int, heads: int, *, stage: int = 0, shifted: bool = False
    ):
        super().__init__()
        require_heads(dim, heads)
        require_odd(window)
        self.dim, self.resolution, self.window, self.heads = dim, resolution, window, heads
        self.query, self.key = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.kernel = nn.Linear(REGIONS**2, window**2)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        require_map(x, self.resolution, self.dim)
        regions = channels_last(F.adaptive_avg_pool2d(channels_first(x), REGIONS)).flatten(1, 2)
        query = self.query(x).flatten(1, 2).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, N, d)
        key = self.key(regions).unflatten(-1, (self.heads, -1)).permute(0, 2, 3, 1)  # (B, heads, d, S*S)
        affinity = (query * query.shape[-1] ** -0.5) @ key  # (B, heads, N, S*S)
        kernels = self.kernel(affinity).softmax(dim=-1)  # (B, heads, N, K*K)
        kernels = kernels.permute(0, 2, 3, 1).unflatten(1, x.shape[1:3])  # (B, H, W, K*K, heads)
        return self.proj(FORMULATIONS[self.formulation](x, kernels, self.window))
