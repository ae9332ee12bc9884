"""Wrong lowerings of people's modules: each is handed the right module and returns one that computes something else.

A variant names the kind that it breaks and the dtypes in which that has to show as `inaccurate`. Weights are the
factory's own with what PyTorch leaves at zero or one filled by `awakened`: what multiplies by one or adds zero cannot
be missed by anybody.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from breaking import Break, at, attribute, forward, inputs, parameter, part, result
from people import DTYPES


@dataclass(frozen=True)
class Wrong:
    """One wrong lowering."""

    name: str
    model: str  # of people.KINDS, by what stands after the colon
    broken: Break
    dtypes: tuple[str, ...] = DTYPES


def rounded(dtype: torch.dtype) -> Break:
    """Weights and inputs rounded to a narrower type."""

    def broken(module: nn.Module) -> Callable[..., Any]:
        for value in module.parameters():
            value.data.copy_(value.data.to(dtype))
        return lambda *given: module(*tree_map_only(Tensor, lambda x: x.to(dtype).to(x.dtype), given))

    return broken


def eight_bits(module: nn.Module) -> nn.Module:
    """Weights in 256 steps of one scale a tensor, silently."""
    for value in module.parameters():
        scale = value.data.abs().max() / 127
        value.data.copy_((value.data / scale).round() * scale)
    return module


def other_weights(module: nn.Module) -> nn.Module:
    """Weights that were never loaded."""
    generator = torch.Generator().manual_seed(99)
    for value in module.parameters():
        value.data.copy_(torch.randn(value.shape, generator=generator) * value.data.std().nan_to_num(1.0))
    return module


def stale(module: nn.Module) -> Callable[..., Any]:
    """What an earlier input gave."""
    return lambda *given: module(*tree_map_only(Tensor, lambda x: x.flip(-1), given))


def exchanged(module: nn.Module, x: Tensor) -> Any:
    fine, coarse = module.fine(x), module.coarse(module.fine(x))  # type: ignore[operator]
    return {"fine": fine, "coarse": coarse}


def without_last(made: Any) -> Any:
    return made[:-1] if isinstance(made, (list, tuple)) else dict(list(made.items())[:-1])


def swapped(first: str, second: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda made: {**made, first: made[second], second: made[first]}


def changed(key: str, change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda made: {**made, key: change(made[key])}


def one_image_for_all(x: Tensor) -> Tensor:
    return x[:1].expand_as(x)


def batch_statistics(module: nn.Module) -> nn.Module:
    """Batch norms that take the statistics of the batch."""
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d):
            each.track_running_stats, each.running_mean, each.running_var = False, None, None
    return module


def gates_in_another_order(weight: Tensor) -> Tensor:
    """Of an LSTM: input, output, forget, cell, as ONNX has it, where PyTorch has input, forget, cell, output."""
    i, f, g, o = weight.chunk(4)
    return torch.cat([i, o, f, g])


def reset_before(layer: nn.GRU, x: Tensor) -> tuple[Tensor, Tensor]:
    """A GRU that resets the state before the product with it, the default of ONNX and not PyTorch's."""
    w, r, bw, br = (getattr(layer, f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    n, state, states = layer.hidden_size, x.new_zeros(len(x), layer.hidden_size), []
    for token in x.unbind(1):
        gates = F.linear(token, w[: 2 * n], bw[: 2 * n]) + F.linear(state, r[: 2 * n], br[: 2 * n])
        reset, update = gates.sigmoid().chunk(2, 1)
        new = (F.linear(token, w[2 * n :], bw[2 * n :]) + F.linear(reset * state, r[2 * n :], br[2 * n :])).tanh()
        state = (1 - update) * new + update * state
        states.append(state)
    return torch.stack(states, 1), state[None]


def decode(module: nn.Module, ids: Tensor, causal: bool = True, shift: int = 0, scale: float | None = None) -> Tensor:
    """people_sequences.Decoder with one thing other than it is."""
    b, length = ids.shape
    net: Any = module
    x = net.table(ids) + net.positions(torch.arange(length) + shift)
    q, k, v = net.qkv(net.norm(x)).view(b, length, 3, 4, 8).permute(2, 0, 3, 1, 4)
    y = F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)
    return net.lm_head(x + net.proj(y.transpose(1, 2).reshape(b, length, 32)))


def untied(module: Any) -> nn.Module:
    """A head that was stored apart from its table, and changed since."""
    module.lm_head.weight = nn.Parameter(module.table.weight.detach().roll(1, 0))
    return module


def one_direction(module: Any) -> nn.Module:
    """A recurrent layer that reads backwards with the weights it reads forwards with."""
    return parameter("recurrent.weight_hh_l0_reverse", lambda _: module.recurrent.weight_hh_l0.data)(module)


def wrong_attention(module: nn.Module, x: Tensor, axis: int = -1) -> Tensor:
    """people_sequences.HardAttention, its softmax over another axis."""
    net: Any = module
    q, k, v = net.qkv(net.patch(x).flatten(2).transpose(1, 2)).chunk(3, -1)
    return (q @ k.transpose(1, 2) * 20).softmax(axis) @ v


def mixture(choice: Callable[[Tensor], Tensor]) -> Break:
    """The shares by which an image's kernel is mixed, as another function of the right ones."""
    return at("choose", choice)


def magnitudes(module: nn.Module) -> nn.Module:
    """Complex weights whose imaginary part was dropped, as a cast to a real type does it."""
    weight: Any = module.complex_weight
    weight.data.copy_(weight.data.real.to(weight.dtype))
    return module


def interpolated(**options: Any) -> Break:
    return forward(lambda module, x: F.interpolate(module.conv(x), size=x.shape[-2:], **options))


def flipped_up(module: nn.Module) -> nn.Module:
    """A transposed convolution done with its taps the other way round."""
    return parameter("up.weight", lambda w: w.flip(2, 3))(module)


def moved(module: nn.Module, x: Tensor) -> Any:
    """A map that lies one position to the right."""
    return module(x).roll(1, -1)


def channels_first_where_last(module: nn.Module, x: Tensor) -> Any:
    return module(x.permute(0, 2, 3, 1).reshape(x.shape))


NARROW_OUT = ("float32",)
OF_OUTPUTS = [
    Wrong("two outputs swapped", "two_towers", result(swapped("image", "text"))),
    Wrong("a wrong second output", "dictionary", result(changed("coarse", lambda y: y * 1.2))),
    Wrong("the second output without the activation before it", "dictionary", forward(exchanged)),
    Wrong("the second output all zeros", "pair", result(lambda made: (made[0], torch.zeros_like(made[1])))),
    Wrong("an output that is missing", "listed", result(without_last)),
    Wrong("a key that is missing", "dictionary", result(without_last)),
    Wrong("NaN in one place of one output", "pair", result(lambda made: (made[0], made[1].index_fill(
        1, torch.tensor([3]), float("nan"))))),
    Wrong("infinity in one place", "dictionary", result(changed("fine", lambda y: y.index_fill(
        1, torch.tensor([0]), float("inf"))))),
    Wrong("indices that are off by one", "indices", result(changed("classes", lambda y: y + 1))),
    Wrong("truth values the other way round", "indices", result(changed("positive", torch.logical_not))),
    Wrong("the weights of attention averaged away", "attention_weights", result(
        lambda made: (made[0], made[1].mean(-1, keepdim=True).expand_as(made[1])))),
    Wrong("a mean over one image instead of all", "whole_batch", inputs(lambda x: (one_image_for_all(x),))),
    Wrong("images in another order", "small_encoder", result(lambda y: y.flip(0))),
    Wrong("every image's output that of the first", "small_encoder", result(one_image_for_all)),
    Wrong("an earlier input's output", "small_encoder", stale),
    Wrong("tokens and channels swapped by a reshape", "cached_table", result(
        lambda y: y.transpose(1, 2).reshape(y.shape))),
    Wrong("the state of a recurrent layer instead of the last but one", "gru", result(
        lambda made: (made[0], made[1] * 0.5))),
]  # fmt: skip
OF_WEIGHTS = [
    Wrong("weights that were never loaded", "small_encoder", other_weights),
    Wrong("a convolution without its bias", "tutorial", parameter("conv.bias", torch.zeros_like)),
    Wrong("a Linear without its bias", "small_encoder", parameter("layers.0.linear1.bias", torch.zeros_like)),
    Wrong("queries, keys and values without their biases", "small_encoder",
          parameter("layers.1.self_attn.in_proj_bias", torch.zeros_like)),
    Wrong("keys and values swapped", "small_encoder", parameter(
        "layers.0.self_attn.in_proj_weight", lambda w: torch.cat([w[:32], w[64:], w[32:64]]))),
    Wrong("a norm without its affine part", "small_encoder", parameter("layers.0.norm2.weight", torch.ones_like)),
    Wrong("a batch norm dropped", "train_returns_nothing", attribute("", "bn", nn.Identity())),
    Wrong("the batch's statistics", "train_returns_nothing", batch_statistics),
    Wrong("a running mean dropped", "train_returns_nothing", parameter("bn.running_mean", torch.zeros_like)),
    Wrong("transposed taps", "unet", parameter("enter.weight", lambda w: w.transpose(2, 3))),
    Wrong("a transposed convolution's taps the other way round", "unet", flipped_up),
    Wrong("input and output channels swapped", "tied", parameter("step.weight", lambda w: w.transpose(0, 1))),
    Wrong("a head that is not tied any more", "decoder", untied),
    Wrong("eight bits, silently", "small_encoder", eight_bits, NARROW_OUT),
    Wrong("bfloat16, silently", "small_encoder", rounded(torch.bfloat16), NARROW_OUT),
    Wrong("float16, silently", "unet", rounded(torch.float16), NARROW_OUT),
    Wrong("the gates of an LSTM in another order", "lstm", parameter("recurrent.weight_ih_l0", gates_in_another_order)),
    Wrong("the backward direction's weights those of the forward one", "lstm", one_direction),
    Wrong("the imaginary part dropped", "global_filter", magnitudes, NARROW_OUT),
    Wrong("a magnitude of a normalised weight dropped", "weight_norm", parameter(
        "0.parametrizations.weight.original0", torch.ones_like)),
    Wrong("a pruned weight that is not pruned", "pruned", parameter("0.weight_mask", torch.ones_like)),
    Wrong("a scale of eight-bit weights that is one for all", "int8_weights", parameter(
        "scale", lambda s: s.mean().expand_as(s))),
]  # fmt: skip
OF_ARITHMETIC = [
    Wrong("another image's kernel", "dynamic_convolution", mixture(one_image_for_all)),
    Wrong("an even mixture of kernels", "dynamic_convolution", mixture(torch.zeros_like)),
    Wrong("kernels in another order of the bank", "dynamic_convolution", parameter("bank", lambda w: w.roll(1, 0))),
    Wrong("zero padding moved by one", "unet", forward(moved)),
    Wrong("corners aligned", "upsampling", interpolated(mode="bilinear", align_corners=True)),
    Wrong("nearest instead of bilinear", "upsampling", interpolated(mode="nearest")),
    Wrong("an activation dropped", "unet", forward(lambda m, x: m.leave(torch.cat(
        [m.enter(x), m.up(F.relu(m.down(F.relu(m.enter(x)))))], 1)))),
    Wrong("channels shuffled with another number of groups", "channel_shuffle", forward(lambda m, x: m.second(
        F.channel_shuffle(m.first(x), 2)).mean((2, 3)))),
    Wrong("no causal mask", "decoder", forward(lambda m, ids: decode(m, ids, causal=False))),
    Wrong("positions off by one", "decoder", forward(lambda m, ids: decode(m, ids, shift=1))),
    Wrong("attention without its scale", "decoder", forward(lambda m, ids: decode(m, ids, scale=1.0))),
    Wrong("indices off by one", "decoder", inputs(lambda ids: ((ids + 1) % 100,))),
    Wrong("softmax over the queries", "hard_attention", forward(lambda m, x: wrong_attention(m, x, axis=-2))),
    Wrong("a mask of padding that is ignored", "padded", forward(lambda m, ids: m.encoder(m.table(ids)))),
    Wrong("the state reset before the product", "gru", part("recurrent", reset_before)),
    Wrong("a mean that is not subtracted", "plain_tensors", attribute("", "mean", torch.zeros(1, 3, 1, 1)), NARROW_OUT),
    Wrong("bytes that are not divided", "camera", result(lambda y: y * 255)),
    Wrong("red and blue swapped", "tutorial", inputs(lambda x: (x.flip(1),))),
    Wrong("channels last read as channels first", "tutorial", forward(channels_first_where_last)),
    Wrong("a mask the other way round", "keywords", inputs(lambda image, mask: (image, ~mask))),
    Wrong("an input read backwards", "encoder_decoder", inputs(lambda source, target: (source, target.flip(1)))),
    Wrong("each image compared with itself alone", "across_images", forward(lambda m, x: torch.cat(
        [m(each) for each in x.split(1)]))),
    Wrong("rows of another image", "bound", parameter("rows", lambda r: r.roll(1, 0))),
    Wrong("another expert", "experts", at("router", lambda y: y.roll(1, -1)), NARROW_OUT),
    Wrong("a residual dropped", "mixer", forward(lambda m, x: m.mix(m.norm(x).roll(1, 1)))),
    Wrong("a shift that does not wrap", "mixer", forward(lambda m, x: x + m.mix(
        F.pad(m.norm(x), (0, 0, 0, 0, 1, 0))[:, :-1]))),
]  # fmt: skip
VARIANTS = [*OF_OUTPUTS, *OF_WEIGHTS, *OF_ARITHMETIC]
