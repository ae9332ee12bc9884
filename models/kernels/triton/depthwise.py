"""The operator mixprof_triton::depthwise: a KxK convolution in channels_last, its kernels static or of each image."""

from math import isqrt
from typing import Any

import torch
from torch import Tensor

from mixprof.models.kernels.triton.launches import Launch, Tensors, cover, power_of_two, present, sums_of

ROWS, COLUMNS, CHANNELS = 4, 8, 32  # of one program's tile: 8 neighbouring channels for each of 128 threads
PLACES, SPLITS = 32, 8  # of the gradient of the kernels: positions at a time, programs that share an image


@torch.library.custom_op("mixprof_triton::depthwise", mutates_args=(), device_types="cuda")
def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    """Convolve each channel with its own kernel, zero-padded. (B, H, W, C) -> (B, H, W, C).

    weight: (1, K*K, C), or (B, K*K, C) of kernels for each image, taps row-major; K odd. bias: (C,) or None.
    relu: whether a ReLU follows.
    """
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    tensors = present({"x": x.contiguous(), "weight": weight, "bias": bias, "out": out})
    forward_launch(tensors, relu=relu).run()
    return out


@torch.library.custom_op("mixprof_triton::depthwise_weight_gradient", mutates_args=(), device_types="cuda")
def depthwise_weight_gradient(x: Tensor, gradient: Tensor, window: int) -> Tensor:
    """The gradient of each image's kernels, (B, K*K, C), from the map and the gradient of the sums, (B, H, W, C)."""
    out = partial_sums(x, window)
    weight_gradient_launch(x.contiguous(), gradient.contiguous(), out, window).run()
    return out.sum(1).flatten(1, 2).to(x.dtype)


def forward_launch(tensors: Tensors, *, relu: bool) -> Launch:
    """How the convolution is launched; the tensors may lie on `meta`."""
    weight, (batch, height, width, dim) = tensors["weight"], tensors["x"].shape
    images, taps = weight.shape[:2]
    strides = (weight.stride(0) if images > 1 else 0, weight.stride(1), weight.stride(2))
    names = ("IMAGE_STRIDE", "TAP_STRIDE", "CHANNEL_STRIDE")
    constants = dict(zip(names, strides, strict=True)) | {"H": height, "W": width, "C": dim, "K": isqrt(taps)}
    tile = {"RELU": relu, "ROWS": ROWS, "COLUMNS": COLUMNS, "CHANNELS": CHANNELS}
    grid = (cover(height, ROWS) * cover(width, COLUMNS), cover(dim, CHANNELS), batch)
    return Launch("depthwise_kernels.mixprof_depthwise_forward", grid, tensors, {**constants, **tile})


def weight_gradient_launch(x: Tensor, gradient: Tensor, out: Tensor, window: int) -> Launch:
    """How the gradient of the kernels is launched; out as partial_sums() makes it."""
    batch, height, width, dim = x.shape
    constants = {"H": height, "W": width, "C": dim, "K": window, "TAPS": power_of_two(window)}
    blocks = {"SPLITS": SPLITS, "PLACES": PLACES, "CHANNELS": CHANNELS}
    grid = (cover(dim, CHANNELS), window, batch * SPLITS)
    tensors = {"x": x, "gradient": gradient, "out": out}
    return Launch("depthwise_kernels.mixprof_depthwise_weight_gradient", grid, tensors, {**constants, **blocks})


def partial_sums(x: Tensor, window: int) -> Tensor:
    """Room for the sums of all shares of an image, (B, shares, K, K, C): added up in the same order every time."""
    return x.new_empty(len(x), SPLITS, window, window, x.shape[-1], dtype=sums_of(x))


@depthwise.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@depthwise_weight_gradient.register_fake
def _(x: Tensor, gradient: Tensor, window: int) -> Tensor:
    return x.new_empty(len(x), window**2, x.shape[-1])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, relu = inputs
    ctx.save_for_backward(x, weight, *([output] if relu else []))
    ctx.biased = bias is not None


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, *rectified = ctx.saved_tensors
    if rectified:
        gradient = gradient * (rectified[0] > 0)
    of_x = of_weight = of_bias = None
    if ctx.needs_input_grad[0]:
        of_x = depthwise(gradient, weight.flip(1), None, False)
    if ctx.needs_input_grad[1]:
        each = depthwise_weight_gradient(x, gradient, isqrt(weight.shape[1]))
        of_weight = each if len(weight) == len(x) else each.sum(0, keepdim=True)
    if ctx.biased and ctx.needs_input_grad[2]:
        of_bias = gradient.sum((0, 1, 2))
    return of_x, of_weight, of_bias, None


depthwise.register_autograd(_backward, setup_context=_keep)
