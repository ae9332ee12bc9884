"""The 1x1 convolution: no exchange between positions, the floor that the other mixers stand on."""

from torch import Tensor, nn

from mixprof.models.folding import as_linear
from mixprof.models.layers import AnySize, pointwise, require_map


class PointwiseConv(AnySize):
    """A 1x1 convolution with bias. (B, H, W, C) -> (B, H, W, C). It has no window."""

    def __init__(
        self, dim: int, resolution: tuple[int, int], window: int, heads: int, *, stage: int = 0, shifted: bool = False
    ):
        super().__init__()
        self.dim, self.resolution = dim, resolution
        self.formulation = "conv"
        self.conv: nn.Module = nn.Conv2d(dim, dim, 1)

    def specialize(self, lowering: str) -> None:
        """Run it as the Linear that it is on a channels-last map."""
        self.conv, self.formulation = as_linear(self.conv), "linear"

    def forward(self, x: Tensor) -> Tensor:
        require_map(x, self.resolution, self.dim)
        return pointwise(self.conv, x)
