"""The operator mixprof_triton::inhomogeneous: a KxK depth-wise convolution whose taps are predicted at every position.

Its gradients predict the taps again: they never exist as a tensor, forward or backward.
"""

from math import isqrt, prod
from typing import Any

import torch
from torch import Tensor

from mixprof.models.kernels.triton.launches import Launch, Tensors, cover, power_of_two, precision, present, sums_of

KERNELS = "inhomogeneous_kernels.mixprof_inhomogeneous"
COLUMNS, GROUPS, CHANNELS = 8, 16, 8  # of a tile, at most: 16 groups are the least that a product takes
PLACES, SPLITS = 16, 8  # of the gradients: positions at a time, programs that share one tap's weights


@torch.library.custom_op("mixprof_triton::inhomogeneous", mutates_args=(), device_types="cuda")
def inhomogeneous(
    x: Tensor,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    relu: bool,
) -> Tensor:
    """Predict the taps of each position, aggregate its neighbours, zero-padded. (B, H, W, C) -> (B, H, W, C).

    hidden: (B, H, W, D); weight (K*K, D, G) and bias (K*K, G) turn its ReLU into the taps of G groups; K odd.
    Channels come and go as (C/G, group). scale and shift: (C,) each, applied to the sums, or None. relu: whether a
    ReLU follows that.
    """
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    dense = {"x": x.contiguous(), "hidden": hidden.contiguous(), "weight": weight.contiguous()}
    aggregate_launch({**dense, "bias": bias, "out": out, **present({"scale": scale, "shift": shift})}, relu=relu).run()
    return out


@torch.library.custom_op("mixprof_triton::inhomogeneous_map_gradient", mutates_args=(), device_types="cuda")
def map_gradient(gradient: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The gradient of the map, (B, H, W, C), from that of the sums."""
    out = torch.empty_like(gradient, memory_format=torch.contiguous_format)
    dense = {"x": gradient.contiguous(), "hidden": hidden.contiguous(), "weight": weight.contiguous()}
    aggregate_launch({**dense, "bias": bias, "out": out}, transposed=True).run()
    return out


@torch.library.custom_op("mixprof_triton::inhomogeneous_generator_gradient", mutates_args=(), device_types="cuda")
def generator_gradient(x: Tensor, hidden: Tensor, weight: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of hidden, weight and bias from that of the sums."""
    of_hidden = torch.empty_like(hidden, memory_format=torch.contiguous_format)
    of_weight, of_bias = partial_sums(weight)
    x, hidden, weight, gradient = (each.contiguous() for each in (x, hidden, weight, gradient))
    read = {"x": x, "gradient": gradient, "hidden": hidden}
    hidden_launch({**read, "weight": weight, "out": of_hidden}).run()
    weight_launch({**read, "of_weight": of_weight, "of_bias": of_bias}).run()
    return of_hidden, of_weight.sum(0).to(weight.dtype), of_bias.sum(0).to(weight.dtype)


def partial_sums(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Room for the gradients of weight and bias from each share of the positions."""
    of_weight = weight.new_empty(SPLITS, *weight.shape, dtype=sums_of(weight))
    return of_weight, of_weight.new_empty(SPLITS, weight.shape[0], weight.shape[2])


def aggregate_launch(tensors: Tensors, *, relu: bool = False, transposed: bool = False) -> Launch:
    """How the aggregation is launched, or with `transposed` the gradient of its map; they may lie on `meta`.

    Where a group has many channels they are shared by several programs, each of which predicts the group's taps: its
    sums then stay in registers, and a small map still makes enough programs.
    """
    x, weight = tensors["x"], tensors["weight"]
    sizes = _sizes(x, weight)
    each = min(sizes["EACH"], CHANNELS)
    rows, groups = 4 if each <= 4 else 2, min(GROUPS, sizes["G"])
    tile = {"ROWS": rows, "COLUMNS": COLUMNS, "GROUPS": groups, "EACH": each, "TRANSPOSED": transposed}
    programs = sizes["G"] // groups * cover(x.shape[3] // sizes["G"], each)
    grid = (cover(x.shape[1], rows) * cover(x.shape[2], COLUMNS), programs, len(x))
    return Launch(f"{KERNELS}_aggregate", grid, tensors, {**sizes, **tile, "RELU": relu}, stages=3)


def hidden_launch(tensors: Tensors) -> Launch:
    """How the gradient of hidden is launched."""
    x = tensors["x"]
    constants = {**_sizes(x, tensors["weight"]), "N": len(x), "PLACES": PLACES}
    grid = (cover(prod(x.shape[:3]), PLACES),)
    return Launch(f"{KERNELS}_hidden_gradient", grid, tensors, constants, _warps(constants["EACH"]))


def weight_launch(tensors: Tensors) -> Launch:
    """How the gradient of the generator's weights is launched; room as partial_sums() makes it."""
    x, of_weight = tensors["x"], tensors["of_weight"]
    constants = {**_sizes(x, of_weight[0]), "N": len(x), "PLACES": PLACES, "SPLITS": SPLITS}
    grid, outputs = (of_weight.shape[1], SPLITS), frozenset({"of_weight", "of_bias"})
    return Launch(f"{KERNELS}_weight_gradient", grid, tensors, constants, _warps(constants["EACH"]), outputs=outputs)


def _sizes(x: Tensor, weight: Tensor) -> dict[str, Any]:
    taps, width, groups = weight.shape
    height, across, dim = x.shape[1:]
    blocks = {"EACH": power_of_two(dim // groups), "WIDE": power_of_two(width, 16), "PRECISION": precision()}
    return {"H": height, "W": across, "C": dim, "D": width, "K": isqrt(taps), "G": groups, **blocks}


def _warps(each: int) -> int:
    return 4 if each <= 8 else 8


@inhomogeneous.register_fake
def _(
    x: Tensor,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    relu: bool,
) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@map_gradient.register_fake
def _(gradient: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.empty_like(gradient, memory_format=torch.contiguous_format)


@generator_gradient.register_fake
def _(x: Tensor, hidden: Tensor, weight: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    of_hidden = torch.empty_like(hidden, memory_format=torch.contiguous_format)
    return of_hidden, weight.new_empty(weight.shape), weight.new_empty(weight.shape[0], weight.shape[2])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, scale, _, relu = inputs
    ctx.save_for_backward(*tensors, scale, output if relu else None)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    x, hidden, weight, bias, scale, rectified = ctx.saved_tensors
    if any(ctx.needs_input_grad[4:6]):
        raise ValueError("got a scale or shift that needs a gradient, expected a folded norm's, which needs none")
    if rectified is not None:
        gradient = gradient * (rectified > 0)
    if scale is not None:
        gradient = gradient * scale
    of_x = map_gradient(gradient, hidden, weight, bias) if ctx.needs_input_grad[0] else None
    of_generator: tuple[Tensor | None, ...] = (None, None, None)
    if any(ctx.needs_input_grad[1:4]):
        of_generator = generator_gradient(x, hidden, weight, gradient)
    return of_x, *of_generator, None, None, None


inhomogeneous.register_autograd(_backward, setup_context=_keep)
