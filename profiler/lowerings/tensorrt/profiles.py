"""Engines for a range of shapes: which axes of an export vary, and TensorRT's optimization profile of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mixprof.data.errors import Unsupported
from mixprof.data.parsing import parse_range
from mixprof.lowerings.onnx_graph import Sizes

if TYPE_CHECKING:
    import torch

    from mixprof.lowerings import Target

Shape = tuple[int, ...]
Profile = dict[str, tuple[Shape, Shape, Shape]]  # dynamic input -> least, usual and greatest shape
NETWORK_STEP = 32  # pixels: the patch of a stem and three mergings divide such sides without padding


def dynamic_axes(inputs: Sequence[torch.Tensor], target: Target) -> tuple[dict[int, Any], ...] | None:
    """For torch.onnx.export: which axes of each input vary; None for none."""
    if "dynamic" not in target.options:
        return None
    from torch.export import Dim

    varying: dict[int, Any] = {0: Dim("batch", min=1)}
    if "resolutions" in target.options:
        height, width = Dim("height", min=1), Dim("width", min=1)
        sides = (NETWORK_STEP * height, NETWORK_STEP * width) if target.images else (height, width)
        varying |= dict(zip(_spatial_axes(target), sides, strict=True))
    return tuple(dict(varying) for _ in inputs)


def _spatial_axes(target: Target) -> tuple[int, int]:
    """Height and width in (B, 3, H, W) of images, in (B, H, W, C) of a mixer's map."""
    return (2, 3) if target.images else (1, 2)


def profile(names: Sequence[str], inputs: Sequence[torch.Tensor], target: Target) -> Profile:
    """The profile of a dynamic engine's inputs, empty for a static one; the case's own shape is the usual one."""
    if "dynamic" not in target.options:
        return {}
    shapes: Profile = {}
    for name, example in zip(names, inputs, strict=True):
        least, most = list(example.shape), list(example.shape)
        least[0], most[0] = parse_range(target.options.get("batches", f"1-{2 * example.shape[0]}"))
        if "resolutions" in target.options:
            low, high = parse_range(target.options["resolutions"])
            if target.images and (low % NETWORK_STEP or high % NETWORK_STEP):
                raise Unsupported(
                    f"got resolutions={low}-{high} for a network, expected multiples of {NETWORK_STEP}: "
                    "its stages halve the map"
                )
            for axis in _spatial_axes(target):
                least[axis], most[axis] = low, high
        shapes[name] = (tuple(least), tuple(example.shape), tuple(most))
    return shapes


def check_profile(inputs: Mapping[str, Sizes], profile: Profile) -> None:
    """Raise Unsupported for a profile that TensorRT would take without a word and build something else from.

    inputs: name -> shape of the graph, a number for each static axis.
    """
    for name, (least, best, most) in profile.items():
        if name not in inputs:
            raise Unsupported(f"got a profile for input '{name}', expected one of {', '.join(inputs)}")
        shape = inputs[name]
        if {len(least), len(best), len(most)} != {len(shape)}:
            raise Unsupported(f"got a profile of {len(best)} axes for input '{name}', expected {len(shape)}")
        for axis, (low, middle, high) in enumerate(zip(least, best, most, strict=True)):
            if not low <= middle <= high:
                raise Unsupported(
                    f"got {low}, {middle}, {high} as minimum, optimum, maximum of axis {axis} of '{name}', "
                    "expected them in rising order"
                )
            if isinstance(shape[axis], int) and {low, high} != {shape[axis]}:
                raise Unsupported(
                    f"got {low} to {high} for axis {axis} of '{name}', which the graph fixes at {shape[axis]}"
                )
