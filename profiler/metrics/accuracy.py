"""Is the output right: weights at unit scale, a float64 reference, the largest relative error."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

# Largest max|y - r| / max|r| that passes: several times what right lowerings of whole networks
# show (float16 8e-4, bfloat16 7e-3 at most), and below what a wrong variant shows (another
# image's kernels, a missing bias, an unmasked shift, transposed taps: 0.1 and more).
TOLERANCES = {"float32": 1e-4, "tf32": 5e-3, "float16": 5e-3, "bfloat16": 4e-2}
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
    return is_leaf and any(parameter.dim() > 1 for parameter in own) and not isinstance(module, (nn.Embedding, *NORMS))


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


def reference(module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """The output of the first and the last image in float64 on the CPU; float32 where that does not fit."""
    ends = tuple(x[[0, -1]] if x.shape[0] > 1 else x for x in inputs)
    try:
        with torch.inference_mode():
            output: Tensor = module.double()(*(x.double() for x in ends))
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "allocate memory" not in str(error):
            raise
        with torch.inference_mode():
            output = module.float()(*(x.float() for x in ends))
    return output


def relative_error(output: Tensor, expected: Tensor) -> float:
    """max|y - r| / max|r| over the first and the last image; infinite where y is not finite or shaped otherwise."""
    ends = output[[0, -1]] if output.shape[0] > 1 else output
    if ends.shape != expected.shape or not bool(torch.isfinite(ends).all()):
        return float("inf")
    largest = float(expected.abs().max())
    return float((ends.double() - expected.double()).abs().max()) / max(largest, 1e-300)


def worst_error(outputs: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest error among several outputs, each compared whole; infinite where their number differs.

    Of floats max|y - r| / max|r|, of integers the share of the elements that differ.
    """
    if len(outputs) != len(expected):
        return float("inf")
    return max(_whole_error(output, right) for output, right in zip(outputs, expected, strict=True))


def _whole_error(output: Tensor, expected: Tensor) -> float:
    if output.shape != expected.shape or not bool(torch.isfinite(output).all()):
        return float("inf")
    if not expected.numel():
        return 0.0
    if not expected.is_floating_point():
        return float((output != expected).double().mean())
    largest = float(expected.double().abs().max())
    return float((output.double() - expected.double()).abs().max()) / max(largest, 1e-300)
