"""Multiply-accumulates of the operators, from the shapes of their arguments: of eager forwards by their parts."""

from collections.abc import Callable
from math import prod

Shape = tuple[int, ...]


def _linear(x: Shape, panels: object, bias: object, outputs: int, *_: object, out: object) -> int:
    return prod(x) * outputs


def _aggregate(x: Shape, weights: Shape, *, out: object) -> int:
    return prod(x) * weights[3]


def _deformable(value: Shape, moved: object, heads: object, window: int, *, out: object) -> int:
    """Four neighbours of every sample."""
    return prod(value) * 4 * window**2


def _depthwise(x: Shape, weight: Shape, *_: object, out: object) -> int:
    return prod(x) * weight[1]


def _inhomogeneous(x: Shape, reduce: object, reduce_bias: object, weight: Shape, *_: object, out: object) -> int:
    """Every position's hidden values, its taps from those, then K*K for every value."""
    return prod(x) * (weight[1] + weight[0]) + prod(x[:3]) * prod(weight)


def _neighborhood_attention(qkv: Shape, bias: object, window: int, *, out: object) -> int:
    """Both products, neighbours beyond the map included."""
    return 2 * prod(qkv) // 3 * window**2


def _window_attention(
    qkv: Shape, padding: object, bias: object, heads: object, window: int, *_: object, out: object
) -> int:
    """Both products, padded positions included."""
    positions = prod(-(-side // window) * window for side in qkv[1:3])
    return 2 * qkv[0] * positions * window**2 * (qkv[3] // 3)


def _directional_scan(x: Shape, low: object, states: object, weight: Shape, *_: object, out: object) -> int:
    """Step sizes from R values; each direction's state and readout for every value."""
    return prod(x) * weight[0] * (weight[1] + 2)


MACS: dict[str, Callable[..., int]] = {
    "mixprof.aggregate": _aggregate,
    "mixprof.linear": _linear,
    "mixprof.deformable": _deformable,
    "mixprof.depthwise": _depthwise,
    "mixprof.directional_scan": _directional_scan,
    "mixprof.inhomogeneous": _inhomogeneous,
    "mixprof.neighborhood_attention": _neighborhood_attention,
    "mixprof.window_attention": _window_attention,
}
