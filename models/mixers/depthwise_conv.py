"""The depth-wise convolution block of DWNet (Han et al., ICLR 2022, arXiv 2106.04263)."""

import torch.nn.functional as F
from torch import Tensor, nn

from mixprof.models.folding import as_linear, fold_after
from mixprof.models.formulations import OWN
from mixprof.models.kernels import depthwise
from mixprof.models.kernels.cpu.linear import CppLinear
from mixprof.models.layers import (
    AnySize,
    Formulated,
    channels_first,
    channels_last,
    pointwise,
    require_map,
    require_odd,
)


class DepthwiseConv(AnySize, Formulated):
    """1x1, BN, ReLU, KxK depth-wise, BN, ReLU, 1x1, BN. (B, H, W, C) -> (B, H, W, C); zero-padded, K odd.

    The dynamic mixers are this block with another `conv`.
    """

    def __init__(
        self, dim: int, resolution: tuple[int, int], window: int, heads: int, *, stage: int = 0, shifted: bool = False
    ):
        super().__init__()
        require_odd(window)
        self.dim, self.resolution, self.window = dim, resolution, window
        self.conv0: nn.Module = nn.Conv2d(dim, dim, 1, bias=False)
        self.bn0: nn.Module = nn.BatchNorm2d(dim)
        self.conv = self.spatial()
        self.bn: nn.Module = nn.BatchNorm2d(dim)
        self.conv2: nn.Module = nn.Conv2d(dim, dim, 1, bias=False)
        self.bn2: nn.Module = nn.BatchNorm2d(dim)

    def spatial(self) -> nn.Module:
        """The layer that mixes positions."""
        return nn.Conv2d(self.dim, self.dim, self.window, padding=self.window // 2, groups=self.dim)

    @property
    def formulation(self) -> str:
        """What the spatial layer currently runs."""
        return self.override or "conv"

    def specialize(self, lowering: str) -> None:
        """Fold the batch norms into the convolutions before them; 1x1 convolutions become Linears."""
        self.lowering = lowering
        for conv, norm in (("conv0", "bn0"), ("conv2", "bn2")):
            linear = as_linear(getattr(self, conv))
            fold_after(linear, getattr(self, norm))
            setattr(self, conv, linear)
        self.fold_spatial(lowering)
        self.bn0 = self.bn = self.bn2 = nn.Identity()

    def fold_spatial(self, lowering: str) -> None:
        """Fold `bn` into `conv`."""
        assert isinstance(self.conv, nn.Conv2d)
        fold_after(self.conv, self.bn)
        if self.formulation in OWN:
            depthwise.prepare(self.formulation)
            self.conv = DepthwiseKernel(self.conv, self.formulation)

    def rectifies(self) -> bool:
        """Whether the spatial layer runs as a kernel that ends with the ReLU."""
        return self.lowering is not None and self.formulation in OWN

    def forward(self, x: Tensor) -> Tensor:
        require_map(x, self.resolution, self.dim)
        if isinstance(self.conv0, CppLinear):
            x = self.conv0(x, rectify=True)
        else:
            x = F.relu(pointwise(self.conv0, x, self.bn0), inplace=True)
        x = channels_last(self.bn(self.conv(channels_first(x))))
        if not self.rectifies():
            x = F.relu(x, inplace=True)
        return pointwise(self.conv2, x, self.bn2)


class DepthwiseKernel(nn.Module):
    """A depth-wise convolution and the ReLU behind it as one kernel. (B, C, H, W) -> (B, C, H, W), channels_last."""

    def __init__(self, conv: nn.Conv2d, formulation: str):
        super().__init__()
        self.run = depthwise.KERNELS[formulation]
        weight = conv.weight.detach().flatten(1).t().contiguous()[None]  # (1, K*K, C)
        self.weight, self.bias = nn.Parameter(weight, requires_grad=False), conv.bias

    def forward(self, x: Tensor) -> Tensor:
        return channels_first(self.run(channels_last(x), self.weight, self.bias))
