"""Random modules of PyTorch's own layers: `random_modules:build:seed=17` is a network of images, always the same one.

A module is a pile of layers on maps (B, C, H, W), then, for most, on tokens (B, N, C), and a head; what it returns is a
tensor, or tensors in tuples, lists and dictionaries. Weights are PyTorch's own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

import random_layers as own

SIDE, BATCH, COUNT = 16, 2, 200
WIDTHS = (4, 8, 12, 16)
Random = random.Random


@dataclass(frozen=True)
class Map:
    """What flows between layers on maps."""

    channels: int
    height: int
    width: int


@dataclass(frozen=True)
class Tokens:
    """What flows between layers on tokens. sides: height and width, as long as every token has a place."""

    channels: int
    length: int
    sides: tuple[int, int] | None


def build(seed: int | str) -> nn.Module:
    """The module of a seed, in evaluation. (B, 3, 16, 16) -> what it returns."""
    dice, generator_state = Random(int(seed)), torch.get_rng_state()
    torch.manual_seed(int(seed))
    try:
        return _module(dice).eval()
    finally:
        torch.set_rng_state(generator_state)


def _module(dice: Random) -> nn.Module:
    stem, flow = _convolution(dice, Map(3, SIDE, SIDE), dense=True)
    stages: list[nn.Module] = [stem]
    for _ in range(dice.randint(1, 5)):
        layer, flow = dice.choice(ON_MAPS)(dice, flow)
        stages.append(layer)
    axes: tuple[int, ...] = (2, 3)
    width = flow.channels
    if dice.random() < 0.7:
        width, axes = _onto_tokens(dice, flow, stages)
    return RandomModule(stages, nn.Linear(width, dice.choice((1, 5, 10))), axes, dice.choice(sorted(PACKS)))


def _onto_tokens(dice: Random, flow: Map, stages: list[nn.Module]) -> tuple[int, tuple[int, ...]]:
    """Add layers on tokens, and now and then a way back to a map: the channels and the axes of positions at the end."""
    stages.append(own.ToTokens())
    tokens = Tokens(flow.channels, flow.height * flow.width, (flow.height, flow.width))
    for _ in range(dice.randint(1, 4)):
        layer, tokens = dice.choice(ON_TOKENS)(dice, tokens)
        stages.append(layer)
    if tokens.sides is None or dice.random() < 0.7:
        return tokens.channels, (1,)
    stages.append(own.ToImage(*tokens.sides))
    return tokens.channels, (2, 3)


class RandomModule(nn.Module):
    """Layers in a row, the mean over positions, a head, and a way to return what came of it."""

    def __init__(self, stages: Sequence[nn.Module], head: nn.Module, axes: tuple[int, ...], pack: str):
        super().__init__()
        self.stages, self.head, self.axes, self.pack = nn.ModuleList(stages), head, axes, pack

    def forward(self, x: torch.Tensor) -> Any:
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return PACKS[self.pack](self.head(x.mean(self.axes)), features)


PACKS: dict[str, Callable[[torch.Tensor, list[torch.Tensor]], Any]] = {
    "tensor": lambda out, features: out,
    "tuple": lambda out, features: (out, features[-1]),
    "list": lambda out, features: [*features, out],
    "dict": lambda out, features: {"logits": out, "features": features[0]},
    "nested": lambda out, features: {"out": (out, {"first": features[0], "rest": features[1:]}), "none": None},
}


def _convolution(dice: Random, flow: Map, dense: bool = False) -> tuple[nn.Module, Map]:
    """A convolution with a random kernel, stride, dilation, groups and padding mode; it halves the sides at most."""
    width = dice.choice(WIDTHS)
    shared = [size for size in (1, 2, 4, flow.channels) if flow.channels % size == 0 and width % size == 0]
    groups = 1 if dense else dice.choice(shared)
    kernel, dilation = dice.choice(((1, 1), (3, 1), (3, 2), (5, 1)))
    even = flow.height % 4 == 0 and flow.width % 4 == 0 and flow.height > 4
    stride = dice.choice((1, 2)) if even else 1
    padding = dilation * (kernel - 1) // 2
    mode: Any = dice.choice(("zeros", "zeros", "reflect")) if padding < flow.height else "zeros"
    conv = nn.Conv2d(
        flow.channels, width, kernel, stride, padding, dilation, groups, bias=dice.random() < 0.7, padding_mode=mode
    )
    made = Map(width, flow.height // stride, flow.width // stride)
    return nn.Sequential(conv, *_norm_and_activation(dice, made)), made


def _norm_and_activation(dice: Random, flow: Map) -> list[nn.Module]:
    width = flow.channels
    norms = (nn.BatchNorm2d(width), nn.GroupNorm(2, width), nn.InstanceNorm2d(width, affine=True), nn.Identity(),
             own.ChannelsLast(nn.LayerNorm(width)), nn.LocalResponseNorm(3))  # fmt: skip
    activations = (nn.ReLU(), nn.GELU(), nn.SiLU(), nn.Hardswish(), nn.PReLU(width), nn.ELU(), nn.Dropout(0.5))
    return [dice.choice(norms), dice.choice(activations)]


def _depthwise_separable(dice: Random, flow: Map) -> tuple[nn.Module, Map]:
    width = dice.choice(WIDTHS)
    layers = (nn.Conv2d(flow.channels, flow.channels, 3, padding=1, groups=flow.channels), nn.ReLU6(),
              nn.Conv2d(flow.channels, width, 1))  # fmt: skip
    return nn.Sequential(*layers), replace(flow, channels=width)


def _residual(dice: Random, flow: Map) -> tuple[nn.Module, Map]:
    hidden = dice.choice(WIDTHS)
    block = nn.Sequential(
        nn.Conv2d(flow.channels, hidden, 3, padding=1), *_norm_and_activation(dice, replace(flow, channels=hidden)),
        nn.Conv2d(hidden, flow.channels, 3, padding=1),
    )  # fmt: skip
    return own.Residual(block), flow


def _branches(dice: Random, flow: Map) -> tuple[nn.Module, Map]:
    widths = [dice.choice((4, 8)) for _ in range(dice.randint(2, 3))]
    kernels = [dice.choice((1, 3, 5)) for _ in widths]
    convs = [
        nn.Conv2d(flow.channels, width, size, padding=size // 2) for width, size in zip(widths, kernels, strict=True)
    ]
    return own.Branches(convs, 1), replace(flow, channels=sum(widths))


def _pool(dice: Random, flow: Map) -> tuple[nn.Module, Map]:
    if flow.height <= 4 or flow.height % 2 or flow.width % 2:
        return nn.MaxPool2d(3, 1, 1), flow
    half = replace(flow, height=flow.height // 2, width=flow.width // 2)
    return dice.choice(
        (nn.MaxPool2d(2), nn.AvgPool2d(2), nn.LPPool2d(2, 2), nn.AdaptiveAvgPool2d((half.height, half.width)))
    ), half


def _upwards(dice: Random, flow: Map) -> tuple[nn.Module, Map]:
    if flow.height > 8:
        return own.Gate(flow.channels), flow
    width = dice.choice(WIDTHS)
    layers = (
        nn.ConvTranspose2d(flow.channels, width, 2, stride=2),
        nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(flow.channels, width, 3, padding=1)),
        nn.Sequential(nn.Conv2d(flow.channels, 4 * width, 1), nn.PixelShuffle(2)),
    )
    return dice.choice(layers), Map(width, 2 * flow.height, 2 * flow.width)


def _rearranged(dice: Random, flow: Map) -> tuple[nn.Module, Map]:
    layers = [own.Gate(flow.channels), own.ChannelsLast(nn.Linear(flow.channels, flow.channels))]
    layers += [own.Windows()] if flow.height % 2 == 0 and flow.width % 2 == 0 else []
    layers += [nn.ChannelShuffle(2)] if flow.channels % 2 == 0 else []
    return dice.choice(layers), flow


def _linear(dice: Random, flow: Tokens) -> tuple[nn.Module, Tokens]:
    width = dice.choice(WIDTHS)
    norms = (nn.LayerNorm(flow.channels), nn.RMSNorm(flow.channels), nn.Identity())
    return nn.Sequential(dice.choice(norms), nn.Linear(flow.channels, width), nn.GELU()), replace(flow, channels=width)


def _attention(dice: Random, flow: Tokens) -> tuple[nn.Module, Tokens]:
    width, heads = flow.channels, dice.choice([size for size in (1, 2, 4) if flow.channels % size == 0])
    layers = (
        own.SelfAttention(width, heads, weights=dice.random() < 0.5), own.Fused(width, heads, dice.random() < 0.5),
        own.Einsum(width, heads), nn.TransformerEncoderLayer(width, heads, 2 * width, batch_first=True,
                                                             norm_first=dice.random() < 0.5),
    )  # fmt: skip
    return dice.choice((dice.choice(layers), own.Residual(dice.choice(layers)))), flow


def _recurrent(dice: Random, flow: Tokens) -> tuple[nn.Module, Tokens]:
    hidden, both, depth = dice.choice((4, 6)), dice.random() < 0.4, dice.choice((1, 2))
    kind = dice.choice((nn.LSTM, nn.GRU, nn.RNN))
    layer = kind(flow.channels, hidden, depth, batch_first=True, bidirectional=both)
    return own.First(layer), replace(flow, channels=hidden * (1 + both))


def _cell(dice: Random, flow: Tokens) -> tuple[nn.Module, Tokens]:
    if flow.length > 16:
        return _recurrent(dice, flow)
    return own.Cell(dice.choice((nn.GRUCell, nn.RNNCell))(flow.channels, 6)), replace(flow, channels=6)


def _along(dice: Random, flow: Tokens) -> tuple[nn.Module, Tokens]:
    width = dice.choice(WIDTHS)
    conv = nn.Conv1d(flow.channels, width, 3, padding=1, bias=dice.random() < 0.5)
    return own.Sequence(conv), replace(flow, channels=width)


def _token_mix(dice: Random, flow: Tokens) -> tuple[nn.Module, Tokens]:
    to = dice.choice((flow.length, 7))
    made = replace(flow, length=to, sides=flow.sides if to == flow.length else None)
    return own.TokenMix(flow.length, to, dice.random() < 0.5), made


def _gated(dice: Random, flow: Tokens) -> tuple[nn.Module, Tokens]:
    return nn.Sequential(nn.Linear(flow.channels, 2 * flow.channels), nn.GLU()), flow


Layer = Callable[[Random, Any], tuple[nn.Module, Any]]
ON_MAPS: list[Layer] = [_convolution, _depthwise_separable, _residual, _branches, _pool, _upwards, _rearranged]
ON_TOKENS: list[Layer] = [_linear, _attention, _attention, _recurrent, _cell, _along, _token_mix, _gated]
