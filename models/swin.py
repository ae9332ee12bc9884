"""Swin Transformer (Liu et al., ICCV 2021, arXiv 2103.14030), with any mixer in the place of window attention."""

from torch import Tensor, nn

from mixprof.models.layers import Mlp, Residual, add
from mixprof.models.pyramid import Pyramid


class SwinBlock(Residual):
    """x + mixer(norm(x)), then x + mlp(norm(x)). (B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, dim: int, mixer: nn.Module):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = mixer
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = add(x, self.attn(self.norm1(x)), self.drop1)
        return add(x, self.mlp(self.norm2(x)), self.drop2)


class Swin(Pyramid):
    """Classify images. (B, 3, H, W) -> (B, num_classes); windows are shifted in every second block."""

    block = SwinBlock
