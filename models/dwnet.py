"""DWNet (Han et al., ICLR 2022, arXiv 2106.04263), with any mixer in the place of the depth-wise block."""

from torch import Tensor, nn

from mixprof.models.folding import fold_before
from mixprof.models.layers import Mlp, Residual, add, channels_first, channels_last
from mixprof.models.pyramid import Pyramid


class DWBlock(Residual):
    """x + mixer(x), without a norm before it, then x + mlp(bn(x)). (B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, dim: int, mixer: nn.Module):
        super().__init__()
        self.attn2conv = mixer
        self.mlp = Mlp(dim)
        self.bn: nn.Module = nn.BatchNorm2d(dim)

    def specialize(self, lowering: str) -> None:
        """Fold the batch norm into the Linear after it."""
        fold_before(self.bn, self.mlp.fc1)
        self.bn = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = add(x, self.attn2conv(x), self.drop1)
        return add(x, self.mlp(channels_last(self.bn(channels_first(x)))), self.drop2)


class DWNet(Pyramid):
    """Classify images. (B, 3, H, W) -> (B, num_classes); no position embedding."""

    block = DWBlock
