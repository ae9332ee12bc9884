"""A linear map over positions, the same for every channel: the token mixing of MLP-Mixer (arXiv 2105.01601)."""

import torch
from torch import Tensor, nn

from mixprof.models.layers import require_map


class SpatialMlp(nn.Module):
    """out[n, c] = sum_m weight[n, m] x[m, c] + bias[n], N = H*W. (B, H, W, C) -> (B, H, W, C). It has no window."""

    formulation = "matmul"

    def __init__(
        self, dim: int, resolution: tuple[int, int], window: int, heads: int, *, stage: int = 0, shifted: bool = False
    ):
        super().__init__()
        self.dim, self.resolution = dim, resolution
        positions = resolution[0] * resolution[1]
        self.weight = nn.Parameter(torch.randn(positions, positions) * positions**-0.5)  # (output, input)
        self.bias = nn.Parameter(torch.zeros(positions))

    def forward(self, x: Tensor) -> Tensor:
        require_map(x, self.resolution, self.dim)
        mixed = torch.matmul(self.weight, x.flatten(1, 2)) + self.bias[:, None]
        return mixed.view(x.shape)
