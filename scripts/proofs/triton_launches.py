"""The launches that resources and bytes are told of: float16, one image, K = 7, the stages of Swin-T and DWNet-T."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mixprof.models.kernels.triton import depthwise, inhomogeneous, window_attention
from mixprof.models.kernels.triton.launches import Launch

STAGES = ((56, 96), (28, 192), (14, 384), (7, 768))  # side of the map, channels
WINDOW, GROUPS, HEAD = 7, 32, 32
Make = Callable[..., Tensor]


@dataclass(frozen=True)
class Known:
    """A launch with the bytes that its operands and its result have, each once."""

    name: str
    map: str
    launch: Launch
    least_bytes: int


def launches(make: Make, stages: int = len(STAGES)) -> Iterator[Known]:
    """Every kernel at the first stage, and the inhomogeneous one at more. make: a tensor of a shape, on any device."""
    yield from _attention(make, *STAGES[0])
    yield from _depthwise(make, *STAGES[0])
    for side, dim in STAGES[:stages]:
        yield from _inhomogeneous(make, side, dim)


def _depthwise(make: Make, side: int, dim: int) -> Iterator[Known]:
    x, out, weight, bias = make(1, side, side, dim), make(1, side, side, dim), make(1, WINDOW**2, dim), make(dim)
    forward = depthwise.forward_launch({"x": x, "weight": weight, "bias": bias, "out": out}, relu=True)
    yield _known("depth-wise, static or dynamic", forward, x, weight, bias, out)
    backward = depthwise.weight_gradient_launch(x, out, depthwise.partial_sums(x, WINDOW), WINDOW)
    yield _known("depth-wise, gradient of its kernels", backward, x, out, weight)


def _inhomogeneous(make: Make, side: int, dim: int) -> Iterator[Known]:
    x, out, hidden = make(1, side, side, dim), make(1, side, side, dim), make(1, side, side, dim // 4)
    weight, bias, scale = make(WINDOW**2, dim // 4, GROUPS), make(WINDOW**2, GROUPS), make(dim)
    read = {"x": x, "hidden": hidden, "weight": weight, "bias": bias, "out": out}
    forward = inhomogeneous.aggregate_launch({**read, "scale": scale, "shift": scale}, relu=True)
    yield _known("inhomogeneous", forward, x, hidden, weight, bias, scale, scale, out)
    if dim != STAGES[0][1]:
        return
    of_map = inhomogeneous.aggregate_launch(read, transposed=True)
    yield _known("inhomogeneous, gradient of the map", of_map, x, hidden, weight, bias, out)
    given = {"x": x, "gradient": out, "hidden": hidden}
    of_hidden = inhomogeneous.hidden_launch({**given, "weight": weight, "out": torch.empty_like(hidden)})
    yield _known("inhomogeneous, gradient of hidden", of_hidden, x, out, hidden, weight, hidden)
    of_weight, of_bias = inhomogeneous.partial_sums(weight)
    of_generator = inhomogeneous.weight_launch({**given, "of_weight": of_weight, "of_bias": of_bias})
    yield _known("inhomogeneous, gradient of its generator", of_generator, x, out, hidden, weight, bias)


def _attention(make: Make, side: int, dim: int) -> Iterator[Known]:
    qkv, out, padding = make(1, side, side, 3 * dim), make(1, side, side, dim), make(3 * dim)
    bias = make(dim // HEAD, WINDOW**2, 56)[..., : WINDOW**2]  # its rows start at multiples of 8, as the mixer's do
    read, shift = {"qkv": qkv, "bias": bias, "padding": padding}, [WINDOW // 2, WINDOW // 2]
    forward = window_attention.forward_launch({**read, "out": out}, WINDOW, shift, -100.0)
    yield _known("window attention, shifted", forward, qkv, bias, out)
    of_bias, of_padding = window_attention.partial_sums(qkv, bias)
    written = {"of_qkv": torch.empty_like(qkv), "of_bias": of_bias, "of_padding": of_padding}
    backward = window_attention.backward_launch({**read, "gradient": out}, written, WINDOW, shift, -100.0)
    yield _known("window attention, its gradients", backward, qkv, bias, out, qkv, bias)


def _known(name: str, launch: Launch, *least: Tensor) -> Known:
    height, width, dim = next(iter(launch.tensors.values())).shape[1:]
    dim = dim // 3 if "qkv" in launch.tensors else dim
    return Known(name, f"{height}x{width}x{dim}", launch, sum(each.numel() * each.element_size() for each in least))
