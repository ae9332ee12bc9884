"""InceptionNeXt's token mixer: a depth-wise convolution split into four branches (Yu et al., arXiv 2303.16900)."""

import torch
from torch import Tensor, nn

from mixprof.models.layers import AnySize, channels_first, channels_last, require_map, require_odd

SHARE = 8  # one in so many channels goes to each convolution
SQUARE = 3  # side of the square kernel


class SplitDepthwiseConv(AnySize):
    """Identity, 3x3, 1xK and Kx1 depth-wise, each on channels of its own. (B, H, W, C) -> (B, H, W, C); K odd.

    The last 3C/8 channels are convolved, the others pass through. It is the whole mixer of the paper's block, whose
    norm and MLP are those of the network around it; the window is the length of the bands, 11 in the paper.
    """

    formulation = "conv"

    def __init__(
        self, dim: int, resolution: tuple[int, int], window: int, heads: int, *, stage: int = 0, shifted: bool = False
    ):
        super().__init__()
        require_odd(window)
        self.dim, self.resolution, width = dim, resolution, dim // SHARE
        self.square = depthwise(width, (SQUARE, SQUARE))
        self.row = depthwise(width, (1, window))
        self.column = depthwise(width, (window, 1))

    def forward(self, x: Tensor) -> Tensor:
        require_map(x, self.resolution, self.dim)
        width = self.dim // SHARE
        rest, square, row, column = channels_first(x).split((self.dim - 3 * width, width, width, width), dim=1)
        mixed = torch.cat((rest, self.square(square), self.row(row), self.column(column)), dim=1)
        return channels_last(mixed)


def depthwise(dim: int, kernel: tuple[int, int]) -> nn.Conv2d:
    """A zero-padded depth-wise convolution with bias that keeps the map's size."""
    return nn.Conv2d(dim, dim, kernel, padding=(kernel[0] // 2, kernel[1] // 2), groups=dim)
