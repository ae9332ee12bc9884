"""The dense convolution: every position of the kernel, every channel."""

from torch import Tensor, nn

from mixprof.models.layers import AnySize, channels_first, channels_last, require_map, require_odd


class Conv(AnySize):
    """A dense KxK convolution with bias, zero-padded, K odd. (B, H, W, C) -> (B, H, W, C)."""

    formulation = "conv"

    def __init__(
        self, dim: int, resolution: tuple[int, int], window: int, heads: int, *, stage: int = 0, shifted: bool = False
    ):
        super().__init__()
        require_odd(window)
        self.dim, self.resolution = dim, resolution
        self.conv = nn.Conv2d(dim, dim, window, padding=window // 2)

    def forward(self, x: Tensor) -> Tensor:
        require_map(x, self.resolution, self.dim)
        return channels_last(self.conv(channels_first(x)))
