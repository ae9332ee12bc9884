"""ConvNeXt's spatial mixer (Liu et al., CVPR 2022, arXiv 2201.03545)."""

from torch import Tensor, nn

from mixprof.models.layers import AnySize, channels_first, channels_last, require_map, require_odd


class ConvNeXt(AnySize):
    """A KxK depth-wise convolution with bias, then a LayerNorm. (B, H, W, C) -> (B, H, W, C); zero-padded, K odd.

    Of the paper's block this is what mixes positions, and the norm that belongs to it. The inverted bottleneck behind
    it is the MLP of the network around; its layer scale is folded into that where it is deployed.
    """

    formulation = "conv"

    def __init__(
        self, dim: int, resolution: tuple[int, int], window: int, heads: int, *, stage: int = 0, shifted: bool = False
    ):
        super().__init__()
        require_odd(window)
        self.dim, self.resolution = dim, resolution
        self.dwconv = nn.Conv2d(dim, dim, window, padding=window // 2, groups=dim)
        self.norm = nn.LayerNorm(dim)  # its epsilon is torch's, 1e-5; the paper's code has 1e-6

    def forward(self, x: Tensor) -> Tensor:
        require_map(x, self.resolution, self.dim)
        return self.norm(channels_last(self.dwconv(channels_first(x))))
