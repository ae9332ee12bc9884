"""Multiply-accumulates of the operators, from the shapes of their arguments.

A gradient that makes taps or logits again, which a backward would else have kept, counts them again.
"""

from collections.abc import Callable
from math import prod

Shape = tuple[int, ...]


def _depthwise(x: Shape, weight: Shape, *_: object, out: object) -> int:
    """K*K for every value."""
    return prod(x) * weight[1]


def _depthwise_weight_gradient(x: Shape, gradient: object, window: int, *, out: object) -> int:
    return prod(x) * window**2


def _inhomogeneous(x: Shape, hidden: Shape, weight: Shape, *_: object, out: object) -> int:
    """Every position's taps from its hidden values, then K*K for every value."""
    return prod(hidden[:3]) * prod(weight) + prod(x) * weight[0]


def _generator_gradient(x: Shape, hidden: Shape, weight: Shape, *_: object, out: object) -> int:
    """The gradients of the taps, once for each of two kernels, and their products with weights and hidden values."""
    return 2 * _inhomogeneous(x, hidden, weight, out=out)


def _window_attention(qkv: Shape, bias: object, padding: object, window: int, *_: object, out: object) -> int:
    """Both products, padded positions included."""
    positions = prod(-(-side // window) * window for side in qkv[1:3])
    return 2 * qkv[0] * positions * window**2 * (qkv[3] // 3)


def _window_attention_backward(
    qkv: Shape, bias: object, padding: object, gradient: object, window: int, *_: object, out: object
) -> int:
    """Five products: the logits again, and two for each product of the forward."""
    return 5 * _window_attention(qkv, bias, padding, window, out=out) // 2


MACS: dict[str, Callable[..., int]] = {
    "mixprof_triton.depthwise": _depthwise,
    "mixprof_triton.depthwise_weight_gradient": _depthwise_weight_gradient,
    "mixprof_triton.inhomogeneous": _inhomogeneous,
    "mixprof_triton.inhomogeneous_map_gradient": _inhomogeneous,
    "mixprof_triton.inhomogeneous_generator_gradient": _generator_gradient,
    "mixprof_triton.window_attention": _window_attention,
    "mixprof_triton.window_attention_backward": _window_attention_backward,
}
