"""Is the output right: weights at unit scale, and the largest relative error to a reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mixprof.data.case import QUANTIZED

# Largest max|y - r| / max|r| that passes: several times what right lowerings of whole networks
# show (float16 8e-4, bfloat16 7e-3 at most), and below what a wrong variant shows (another
# image's kernels, a missing bias, an unmasked shift, transposed taps: 0.1 and more).
TOLERANCES = {"float32": 1e-4, "tf32": 5e-3, "float16": 5e-3, "bfloat16": 4e-2, "int8": 0.5, "fp8": 0.5}
TOLERANCES |= {f"amp_{name}": TOLERANCES[name] for name in ("float16", "bfloat16")}
# Of a user's model, whose weights stay as they came: so many times what plain PyTorch loses in the case's dtype against
# float64 on the same weights and inputs, and no less than some roundings of that dtype.
PLAIN_ROOM = 3.0
PLAIN_FLOORS = {"float32": 1e-4, "tf32": 2e-3, "float16": 2e-3, "bfloat16": 1e-2, **dict.fromkeys(QUANTIZED, 0.5)}
PLAIN_FLOORS |= {f"amp_{name}": PLAIN_FLOORS[name] for name in ("float16", "bfloat16")}  # of an anchor
LARGEST = 0.5  # of any tolerance: beyond it an output says nothing
NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)


def random_input(shape: tuple[int, ...], generator: torch.Generator, *, images: bool) -> Tensor:
    """Standard normal, and each image's channels with means of their own, as pictures have them.

    shape: (B, 3, H, W) of images, else (B, H, W, C). With equal means a kernel that is predicted from an
    image's average would hardly depend on the image, and mixing images up would not show.
    """
    batch, first, *_, last = shape
    means = (batch, first, 1, 1) if images else (batch, 1, 1, last)
    return torch.randn(shape, generator=generator) + torch.randn(means, generator=generator)


def initialize(module: nn.Module, inputs: tuple[Tensor, ...], seed: int) -> None:
    """Give every branch an output of unit scale, in place, by one forward in float32.

    Layers that own matrices or kernels are scaled by the deviation of their own output, in
    the order in which they run (layer-sequential unit variance, Mishkin and Matas 2016).
    Biases, affine parameters and running statistics differ by channel and are large enough
    that dropping or misplacing one shows; every other parameter is standard normal.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in module.modules():
            _fill(part, generator)
        handles = [part.register_forward_hook(_unit_scale()) for part in module.modules() if _is_weighted(part)]
        try:
            module(*inputs)
        finally:
            for handle in handles:
                handle.remove()


def _is_weighted(module: nn.Module) -> bool:
    """A layer without layers of its own whose output is a product with its parameters."""
    is_leaf = next(module.children(), None) is None
    own = list(module.parameters(recurse=False))
    return is_leaf and any(part.dim() > 1 for part in own) and not isinstance(module, (nn.Embedding, *NORMS))


def _fill(module: nn.Module, generator: torch.Generator) -> None:
    """Random values for one module's own parameters and statistics."""
    weighted, norm = _is_weighted(module), isinstance(module, NORMS)
    for name, parameter in module.named_parameters(recurse=False):
        if norm and name == "weight":
            parameter.uniform_(0.5, 1.5, generator=generator)
        elif norm or (weighted and parameter.dim() == 1):
            parameter.uniform_(-0.9, 0.9, generator=generator)
        elif weighted:
            parameter.normal_(std=parameter[0].numel() ** -0.5, generator=generator)
        else:
            parameter.normal_(generator=generator)
    for name, low, high in (("running_mean", -0.5, 0.5), ("running_var", 0.5, 1.5)):
        if isinstance(statistic := getattr(module, name, None), Tensor):
            statistic.uniform_(low, high, generator=generator)


def _unit_scale() -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]:
    """A hook that rescales a layer at its first call so that its output has deviation 1."""
    done = False

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        nonlocal done
        if done or not isinstance(output, Tensor) or output.numel() < 2:
            return None
        done = True
        deviation = float(output.float().std())
        if not 1e-6 < deviation < 1e6:
            return None
        for parameter in module.parameters(recurse=False):
            parameter.div_(deviation)
        return output / deviation

    return hook


def worst_error(outputs: Sequence[Tensor], expected: Sequence[Tensor], *, of_ends: bool = False) -> float:
    """The largest error among several outputs; infinite where their number differs.

    Of floats max|y - r| / max|r|, of integers the share of the elements that differ. of_ends: expected holds the first
    and the last image alone.
    """
    if len(outputs) != len(expected):
        return float("inf")
    compared = [output[[0, -1]] if of_ends and output.dim() else output for output in outputs]
    return max(map(_error, compared, expected), default=0.0)


def sqnr_db(outputs: Sequence[Tensor], expected: Sequence[Tensor], *, of_ends: bool = False) -> list[float | None]:
    """Signal over quantization noise of each float output, 10 log10(sum r^2 / sum (y - r)^2); None for any other."""
    compared = [output[[0, -1]] if of_ends and output.dim() else output for output in outputs]
    return list(map(_sqnr_db, compared, expected))


def _sqnr_db(output: Tensor, expected: Tensor) -> float | None:
    if output.shape != expected.shape or not expected.is_floating_point() or not bool(torch.isfinite(output).all()):
        return None
    signal, noise = (float(x.double().square().sum()) for x in (expected, output.double() - expected.double()))
    return 10 * math.log10(signal / noise) if signal and noise else None


def _error(output: Tensor, expected: Tensor) -> float:
    if output.shape != expected.shape or not bool(torch.isfinite(output).all()):
        return float("inf")
    if not expected.numel():
        return 0.0
    if not (expected.is_floating_point() or expected.is_complex()):
        return float((output != expected).double().mean())
    wide = torch.complex128 if expected.is_complex() else torch.float64
    largest = float(expected.to(wide).abs().max())
    return float((output.to(wide) - expected.to(wide)).abs().max()) / max(largest, 1e-300)
