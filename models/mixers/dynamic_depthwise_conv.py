"""DWNet's block with a kernel per image and channel, predicted from the image's mean (arXiv 2106.04263)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixprof.models.folding import affine, fold_after, permute_outputs
from mixprof.models.formulations import OWN
from mixprof.models.kernels import depthwise
from mixprof.models.layers import channels_first, channels_last
from mixprof.models.mixers.depthwise_conv import DepthwiseConv


class DynamicConv(nn.Module):
    """A depth-wise KxK convolution whose kernels the input predicts. (B, C, H, W) -> (B, C, H, W); zero-padded.

    Generator: mean over positions, 1x1 to C/4, BN, ReLU, 1x1 to C*K*K (channel c, tap t at c*K*K + t).
    """

    fused: str | None = None  # the kernel of ours as which it runs, with the ReLU behind it

    def __init__(self, dim: int, window: int):
        super().__init__()
        self.window = window
        self.bias = nn.Parameter(torch.zeros(dim))
        self.conv1 = nn.Conv2d(dim, dim // 4, 1, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(dim // 4)
        self.conv2 = nn.Conv2d(dim // 4, dim * window**2, 1)

    def fold(self, norm: nn.Module) -> None:
        """Fold the generator's own batch norm, and into its kernels the one after the convolution."""
        fold_after(self.conv1, self.bn)
        self.bn = nn.Identity()
        fold_after(self.conv2, norm, repeat=self.window**2)
        scale, shift = affine(norm)
        bias = (self.bias.double() * scale + shift).to(self.bias.dtype)
        self.bias = nn.Parameter(bias, requires_grad=False)

    def fuse(self, formulation: str) -> None:
        """Run as a kernel of ours, for which the generator gives out its kernels as (tap, channel)."""
        depthwise.prepare(formulation)
        self.fused, channels = formulation, torch.arange(self.conv2.out_channels, device=self.conv2.weight.device)
        permute_outputs(self.conv2, channels.view(-1, self.window**2).t().flatten())

    def forward(self, x: Tensor) -> Tensor:
        batch, dim, height, width = x.shape
        hidden = F.relu(self.bn(self.conv1(x.mean((2, 3), keepdim=True))))
        if self.fused is not None:
            kernels = self.conv2(hidden).view(batch, -1, dim)  # (B, K*K, C)
            return channels_first(depthwise.KERNELS[self.fused](channels_last(x), kernels, self.bias))
        kernels = self.conv2(hidden).view(batch * dim, 1, self.window, self.window)
        # At batch 1 not even a view: its strides would no longer say channels_last, and the kernel would copy.
        one = x if batch == 1 else x.reshape(1, batch * dim, height, width)
        bias = self.bias if batch == 1 else self.bias.repeat(batch)
        mixed = F.conv2d(one, kernels, bias, padding=self.window // 2, groups=batch * dim)
        return mixed.reshape(x.shape)


class DynamicDepthwiseConv(DepthwiseConv):
    """The depth-wise block with kernels predicted per image. (B, H, W, C) -> (B, H, W, C)."""

    conv: DynamicConv

    def spatial(self) -> nn.Module:
        """The layer that mixes positions."""
        return DynamicConv(self.dim, self.window)

    @property
    def formulation(self) -> str:
        """What the spatial layer currently runs: one convolution with groups = B * C."""
        return self.override or "grouped_conv"

    def fold_spatial(self, lowering: str) -> None:
        """Fold `bn` into the generator."""
        self.conv.fold(self.bn)
        if self.formulation in OWN:
            self.conv.fuse(self.formulation)
