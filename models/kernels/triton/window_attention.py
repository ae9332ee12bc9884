"""The operator mixprof_triton::window_attention: from the projected map to the mixed one, nothing stored between."""

from math import isqrt
from typing import Any

import torch
from torch import Tensor

from mixprof.models.kernels.triton.launches import Launch, Tensors, cover, power_of_two, precision, sums_of

MOST_TOKENS = 64  # of a window: its logits are in registers whole
READ, SETTINGS = "Tensor qkv, Tensor bias, Tensor padding", "int window, int[] shift, float masked"
SPLITS = 64  # programs, at most, that share a head's windows in the backward


@torch.library.custom_op(
    "mixprof_triton::window_attention", mutates_args=(), device_types="cuda", schema=f"({READ}, {SETTINGS}) -> Tensor"
)
def window_attention(
    qkv: Tensor, bias: Tensor, padding: Tensor, window: int, shift: list[int], masked: float
) -> Tensor:
    """Attend within windows of the padded, shifted map. qkv (B, H, W, 3 * C) -> (B, H, W, C).

    bias: (heads, K*K, K*K), added to the logits; padding: (3 * C,), what qkv is where the map is padded; shift: along
    each axis, in positions; masked: what is added between regions that only the shift brought together.
    ValueError for a window of more than 64 positions.
    """
    require_fit(window)
    out = qkv.new_empty(*qkv.shape[:3], qkv.shape[3] // 3)
    tensors = {"qkv": qkv.contiguous(), "bias": bias, "padding": padding.contiguous(), "out": out}
    forward_launch(tensors, window, shift, masked).run()
    return out


@torch.library.custom_op(
    "mixprof_triton::window_attention_backward",
    mutates_args=(),
    device_types="cuda",
    schema=f"({READ}, Tensor gradient, {SETTINGS}) -> (Tensor, Tensor, Tensor)",
)
def window_attention_backward(
    qkv: Tensor, bias: Tensor, padding: Tensor, gradient: Tensor, window: int, shift: list[int], masked: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of qkv, bias and padding from that of the mixed map; the logits are computed again."""
    require_fit(window)
    of_qkv = torch.empty_like(qkv, memory_format=torch.contiguous_format)
    of_bias, of_padding = partial_sums(qkv, bias)
    read = {"qkv": qkv.contiguous(), "bias": bias, "padding": padding.contiguous(), "gradient": gradient.contiguous()}
    written = {"of_qkv": of_qkv, "of_bias": of_bias, "of_padding": of_padding}
    backward_launch(read, written, window, shift, masked).run()
    return of_qkv, of_bias.sum(0).to(bias.dtype), of_padding.sum(0).to(padding.dtype)


def require_fit(window: int) -> None:
    """Raise ValueError for a window whose logits do not fit."""
    if window**2 > MOST_TOKENS:
        raise ValueError(f"got window={window}, expected at most {isqrt(MOST_TOKENS)} for the formulation 'triton'")


def partial_sums(qkv: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Room for the gradients of bias and padding from each share of the windows."""
    batch, height, width, three = qkv.shape
    window = isqrt(bias.shape[1])
    shares = min(SPLITS, batch * cover(height, window) * cover(width, window))
    of_bias = bias.new_empty(shares, *bias.shape, dtype=sums_of(bias))
    return of_bias, of_bias.new_zeros(shares, three)


def forward_launch(tensors: Tensors, window: int, shift: list[int], masked: float) -> Launch:
    """How the attention is launched; the tensors may lie on `meta`."""
    read, constants = _with_constants(tensors, window, shift, masked)
    qkv, bias = tensors["qkv"], tensors["bias"]
    grid = (cover(qkv.shape[1], window) * cover(qkv.shape[2], window), len(bias), len(qkv))
    return Launch("window_attention_kernels.mixprof_window_attention_forward", grid, read, constants)


def backward_launch(read: Tensors, written: Tensors, window: int, shift: list[int], masked: float) -> Launch:
    """How its gradients are launched; room for them as partial_sums() makes it."""
    tensors, constants = _with_constants(read, window, shift, masked)
    qkv, bias, shares = tensors["qkv"], tensors["bias"], len(written["of_bias"])
    grid, constants = (shares, len(bias)), {**constants, "N": len(qkv), "SPLITS": shares}
    name = "window_attention_kernels.mixprof_window_attention_backward"
    return Launch(name, grid, {**tensors, **written}, constants, outputs=frozenset(written))


def _with_constants(
    tensors: Tensors, window: int, shift: list[int], masked: float
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, without a padding where the map needs none, and the sizes and settings of the kernels."""
    qkv, bias = tensors["qkv"], tensors["bias"]
    height, width, dim, heads = *qkv.shape[1:3], qkv.shape[3] // 3, len(bias)
    if bias.stride(2) != 1:
        raise ValueError(f"got a bias with strides {bias.stride()}, expected the last to be 1: make it contiguous")
    padded = height % window or width % window
    return {name: tensor for name, tensor in tensors.items() if padded or name != "padding"}, {
        **{"H": height, "W": width, "C": dim, "D": dim // heads, "K": window},
        **{"SHIFT_Y": shift[0], "SHIFT_X": shift[1], "SCALE": (dim // heads) ** -0.5, "MASKED": masked},
        **{"HEAD_STRIDE": bias.stride(0), "BIAS_STRIDE": bias.stride(1), "PRECISION": precision()},
        **{"TOKENS": power_of_two(window**2, 16), "WIDE": power_of_two(dim // heads, 16)},
    }


@window_attention.register_fake
def _(qkv: Tensor, bias: Tensor, padding: Tensor, window: int, shift: list[int], masked: float) -> Tensor:
    return qkv.new_empty(*qkv.shape[:3], qkv.shape[3] // 3)


@window_attention_backward.register_fake
def _(
    qkv: Tensor, bias: Tensor, padding: Tensor, gradient: Tensor, window: int, shift: list[int], masked: float
) -> tuple[Tensor, Tensor, Tensor]:
    of_qkv = torch.empty_like(qkv, memory_format=torch.contiguous_format)
    return of_qkv, bias.new_empty(bias.shape), padding.new_empty(padding.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.settings = inputs[3:]


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    return *window_attention_backward(*ctx.saved_tensors, gradient, *ctx.settings), None, None, None


window_attention.register_autograd(_backward, setup_context=_keep)
