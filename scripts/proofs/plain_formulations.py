"""Mixers as one would first write them, by themselves and in networks: bench_mixers.py measures ours against them.

Explicit softmax attention with the relative bias gathered at each call, roll and window partition by contiguous
copies; batch norm unfolded, NHWC <-> NCHW copies around every convolutional mixer, 1x1 convolutions as Conv2d;
dynamic kernels as a grouped convolution; position-wise kernels as unfold and einsum. Parameters have the published
names, so a state dict fits both. Only maps that windows, merges and reductions divide. Each name in MODELS is also a
factory of this module: `plain_formulations:swin_t`.
"""

import importlib
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import plain_newer
from mixprof import models

Mixer = Callable[..., nn.Module]  # (dim, resolution, window, heads, stage, shifted)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Softmax attention, explicitly. q (..., heads, positions, d) -> (..., positions, heads * d)."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if bias is not None:
        scores = scores + bias
    return (scores.softmax(dim=-1) @ v).transpose(-3, -2).flatten(-2)


def split_heads(x: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """(B, N, parts * C) -> parts tensors (B, heads, N, d)."""
    return x.unflatten(-1, (parts, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


class PlainAttention(nn.Module):
    """Multi-head attention over all positions of (B, ..., C), and the projections the other attentions share."""

    def __init__(self, dim: int, resolution: tuple[int, int], window: int, heads: int, stage: int, shifted: bool):
        super().__init__()
        self.resolution, self.window, self.heads = resolution, window, heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = split_heads(self.qkv(x.flatten(1, -2)), 3, self.heads)
        return self.proj(attend(q, k, v)).view(x.shape)


class PlainWindowAttention(PlainAttention):
    relative_position_index: Tensor
    mask: Tensor

    def __init__(self, dim: int, resolution: tuple[int, int], window: int, heads: int, stage: int, shifted: bool):
        super().__init__(dim, resolution, window, heads, stage, shifted)
        self.shift = window // 2 if shifted and min(resolution) > window else 0
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        grid = torch.cartesian_prod(torch.arange(window), torch.arange(window))
        offset = grid[:, None] - grid[None] + window - 1
        self.register_buffer(
            "relative_position_index", offset[..., 0] * (2 * window - 1) + offset[..., 1], persistent=False
        )
        region = torch.zeros(1, *resolution, 1)
        for axis in (1, 2):
            wrapped = torch.arange(resolution[axis - 1]) >= resolution[axis - 1] - self.shift
            region += axis * wrapped.view(-1, *(1,) * (3 - axis))
        region = self.partition(region).flatten(1)
        self.register_buffer("mask", (region[:, None] != region[:, :, None]) * -100.0, persistent=False)

    def partition(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B * windows, K * K, C)."""
        batch, height, width, channels = x.shape
        x = x.view(batch, height // self.window, self.window, width // self.window, self.window, channels)
        return x.transpose(2, 3).contiguous().view(-1, self.window**2, channels)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        windows = self.partition(torch.roll(x, (-self.shift, -self.shift), (1, 2)) if self.shift else x)
        q, k, v = split_heads(self.qkv(windows), 3, self.heads)
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)[None]
        if self.shift:
            bias = bias + self.mask.repeat(batch, 1, 1)[:, None]
        y = self.proj(attend(q, k, v, bias))
        y = y.view(batch, height // self.window, width // self.window, self.window, self.window, channels)
        y = y.transpose(2, 3).contiguous().view(x.shape)
        return torch.roll(y, (self.shift, self.shift), (1, 2)) if self.shift else y


class PlainSpatialReductionAttention(nn.Module):
    def __init__(self, dim: int, resolution: tuple[int, int], window: int, heads: int, stage: int, shifted: bool):
        super().__init__()
        self.heads, self.reduction = heads, (8, 4, 2, 1)[stage]
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        if self.reduction > 1:
            self.sr = nn.Conv2d(dim, dim, self.reduction, self.reduction)
            self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        (q,) = split_heads(self.q(x.flatten(1, 2)), 1, self.heads)
        small = x.flatten(1, 2)
        if self.reduction > 1:
            small = self.norm(self.sr(x.permute(0, 3, 1, 2).contiguous()).flatten(2).transpose(1, 2))
        k, v = split_heads(self.kv(small), 2, self.heads)
        return self.proj(attend(q, k, v)).view(x.shape)


class PlainNeighborhoodAttention(PlainAttention):
    """Attention to the K x K around each position, as unfold and einsum."""

    def __init__(self, dim: int, resolution: tuple[int, int], window: int, heads: int, stage: int, shifted: bool):
        super().__init__(dim, resolution, window, heads, stage, shifted)
        self.relative_position_bias = nn.Parameter(torch.zeros(heads, window**2))

    def neighbours(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, heads, d, taps, N)."""
        columns = F.unfold(x, self.window, padding=self.window // 2)
        return columns.view(len(x), self.heads, -1, self.window**2, columns.shape[-1])

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).permute(0, 3, 1, 2).chunk(3, dim=1)  # (B, C, H, W)
        k, v = (self.neighbours(part) for part in (k, v))  # (B, heads, d, taps, N)
        q = q.flatten(2).unflatten(1, (self.heads, -1))
        scores = torch.einsum("bhdn,bhdtn->bhtn", q * q.shape[2] ** -0.5, k) + self.relative_position_bias[:, :, None]
        inside = F.unfold(torch.ones_like(x[:1, :, :, :1]).permute(0, 3, 1, 2), self.window, padding=self.window // 2)
        weights = scores.masked_fill(inside == 0, float("-inf")).softmax(dim=2)
        return self.proj(torch.einsum("bhtn,bhdtn->bnhd", weights, v).reshape(x.shape))


class PlainConv(nn.Module):
    """Dense convolution, contiguous in NCHW."""

    def __init__(self, dim: int, resolution: tuple[int, int], window: int, heads: int, stage: int, shifted: bool):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, window, padding=window // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.permute(0, 3, 1, 2).contiguous()).permute(0, 2, 3, 1).contiguous()


class PlainPointwiseConv(PlainConv):
    def __init__(self, dim: int, resolution: tuple[int, int], window: int, heads: int, stage: int, shifted: bool):
        super().__init__(dim, resolution, 1, heads, stage, shifted)


class DynamicConv(nn.Module):
    """One predicted kernel per image and channel, as a grouped convolution. (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, window: int):
        super().__init__()
        self.window = window
        self.conv1 = nn.Conv2d(dim, dim // 4, 1, bias=False)
        self.bn = nn.BatchNorm2d(dim // 4)
        self.conv2 = nn.Conv2d(dim // 4, dim * window**2, 1)
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        kernels = self.conv2(F.relu(self.bn(self.conv1(F.adaptive_avg_pool2d(x, 1)))))
        kernels = kernels.reshape(batch * channels, 1, self.window, self.window)
        y = F.conv2d(
            x.reshape(1, batch * channels, height, width),
            kernels,
            self.bias.repeat(batch),
            padding=self.window // 2,
            groups=batch * channels,
        )
        return y.view(x.shape)


class InhomogeneousConv(nn.Module):
    """One predicted kernel per position and group, as unfold and einsum. (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, window: int):
        super().__init__()
        self.window, self.groups = window, 32
        self.conv1 = nn.Sequential(nn.Conv2d(dim, dim // 4, 1), nn.BatchNorm2d(dim // 4), nn.ReLU())
        self.conv2 = nn.Sequential(nn.Conv2d(dim // 4, self.groups * window**2, 1))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        taps = self.window**2
        kernels = self.conv2(self.conv1(x)).view(batch, self.groups, taps, height * width)
        columns = F.unfold(x, self.window, padding=self.window // 2)
        columns = columns.view(batch, self.groups, channels // self.groups, taps, height * width)
        return torch.einsum("bgtn,bgctn->bgcn", kernels, columns).reshape(x.shape)


class PlainDepthwise(nn.Module):
    """1x1, norm, ReLU, K x K depth-wise (static or dynamic), norm, ReLU, 1x1, norm, contiguous in NCHW."""

    def __init__(self, dim: int, resolution: tuple[int, int], window: int, heads: int, stage: int, shifted: bool):
        super().__init__()
        self.conv0 = nn.Conv2d(dim, dim, 1, bias=False)
        self.bn0 = nn.BatchNorm2d(dim)
        self.conv = self.middle(dim, window)
        self.bn = nn.BatchNorm2d(dim)
        self.conv2 = nn.Conv2d(dim, dim, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(dim)

    def middle(self, dim: int, window: int) -> nn.Module:
        return nn.Conv2d(dim, dim, window, padding=window // 2, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 3, 1, 2).contiguous()
        x = F.relu(self.bn0(self.conv0(x)))
        x = F.relu(self.bn(self.conv(x)))
        return self.bn2(self.conv2(x)).permute(0, 2, 3, 1).contiguous()


class PlainDynamicDepthwise(PlainDepthwise):
    def middle(self, dim: int, window: int) -> nn.Module:
        return DynamicConv(dim, window)


class PlainInhomogeneousDepthwise(PlainDepthwise):
    def middle(self, dim: int, window: int) -> nn.Module:
        return InhomogeneousConv(dim, window)


class PlainLocalMlp(nn.Module):
    def __init__(self, dim: int, resolution: tuple[int, int], window: int, heads: int, stage: int, shifted: bool):
        super().__init__()
        self.window, self.heads = window, heads
        self.value = nn.Linear(dim, dim)
        self.weight = nn.Parameter(torch.zeros(*resolution, window**2, heads))
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        value = self.value(x).permute(0, 3, 1, 2).contiguous()
        columns = F.unfold(value, self.window, padding=self.window // 2)
        columns = columns.view(len(x), self.heads, -1, self.window**2, columns.shape[-1])
        return self.proj(torch.einsum("nth,bhdtn->bnhd", self.weight.flatten(0, 1), columns).reshape(x.shape))


class PlainSpatialMlp(nn.Module):
    def __init__(self, dim: int, resolution: tuple[int, int], window: int, heads: int, stage: int, shifted: bool):
        super().__init__()
        positions = resolution[0] * resolution[1]
        self.weight = nn.Parameter(torch.zeros(positions, positions))
        self.bias = nn.Parameter(torch.zeros(positions))

    def forward(self, x: Tensor) -> Tensor:
        mixed = F.linear(x.flatten(1, 2).transpose(1, 2).contiguous(), self.weight, self.bias)
        return mixed.transpose(1, 2).contiguous().view(x.shape)


MIXERS: dict[str, Mixer] = {
    "window_attention": PlainWindowAttention,
    "global_attention": PlainAttention,
    "spatial_reduction_attention": PlainSpatialReductionAttention,
    "neighborhood_attention": PlainNeighborhoodAttention,
    "conv": PlainConv,
    "pointwise_conv": PlainPointwiseConv,
    "depthwise_conv": PlainDepthwise,
    "dynamic_depthwise_conv": PlainDynamicDepthwise,
    "inhomogeneous_depthwise_conv": PlainInhomogeneousDepthwise,
    "local_mlp": PlainLocalMlp,
    "spatial_mlp": PlainSpatialMlp,
    **plain_newer.MIXERS,
}


def build(name: str, resolution: int, window: int, channels: int = 96) -> nn.Module:
    """A mixer, or a network as published around the plain one of its own mixer; a ViT has explicit attention."""
    base, _, option = name.partition(":")
    entry = models.MODELS[base]
    sides = (resolution, resolution)
    if entry.kind == "mixer":
        return MIXERS[base](channels, sides, window, channels // 32, 0, option == "shifted=true")
    if entry.mixer is None:
        return models.build(f"{name}:attention=explicit", resolution=resolution)
    module, _, attribute = entry.factory.partition(":")
    network = getattr(importlib.import_module(module), attribute)
    return network(sides, window, 1000, mixer=MIXERS[entry.mixer], **entry.settings)


def _mixer(name: str) -> Callable[..., nn.Module]:
    return lambda resolution, window, channels: build(name, resolution, window, channels)


def _network(name: str) -> Callable[..., nn.Module]:
    return lambda resolution, window: build(name, resolution, window)


MODELS = [name for name in models.MODELS if name in MIXERS or models.kind(name) == "network"]
globals().update({name: (_mixer if name in MIXERS else _network)(name) for name in MODELS})
