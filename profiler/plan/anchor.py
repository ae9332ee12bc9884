"""The anchor: a fixed piece of work that every sweep times, so that runs can be compared as ratios to it."""

import torch
from torch import Tensor, nn

CHANNELS = 96
RESOLUTION = 56


class Anchor(nn.Module):
    """A matrix product, a 7x7 depth-wise convolution and a copy. (B, 56, 56, 96) -> (B, 56, 56, 96).

    It must never change: stored runs are ratios to it. As `anchor_v1` it runs as the cases beside it do; on a GPU
    it is `anchor_v2`, which eager runs as one CUDA graph, so that its time is not that of Python.
    """

    def __init__(self) -> None:
        super().__init__()
        self.product = nn.Linear(CHANNELS, CHANNELS)
        self.convolution = nn.Conv2d(CHANNELS, CHANNELS, 7, padding=3, groups=CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.convolution(self.product(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return torch.cat((mixed[:, 1:], mixed[:, :1]), dim=1)


def build() -> nn.Module:
    """The anchor in eval mode."""
    return Anchor().eval()
