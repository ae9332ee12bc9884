"""Ways to break a module, for wrong_variants: each makes a function of the right module's own copy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Break = Callable[[nn.Module], Any]  # the right module, its own copy, to a callable of the same inputs


def awakened(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with biases, affine parameters and statistics that differ by channel, in place."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        constant = value.is_floating_point() and value.dim() and value.numel() > 1 and bool((value == value[0]).all())
        if not constant:
            continue
        low, high = (0.5, 1.5) if float(value.detach().flatten()[0]) == 1 or "var" in name else (-0.5, 0.5)
        value.data.copy_(torch.empty(value.shape).uniform_(low, high, generator=generator))
    return module


def at(path: str, change: Callable[[Any], Any]) -> Break:
    """What a part returns, changed."""

    def broken(module: nn.Module) -> nn.Module:
        module.get_submodule(path).register_forward_hook(lambda _, __, made: change(made))
        return module

    return broken


def given_to(path: str, change: Callable[[Any], Any]) -> Break:
    """What a part is given first, changed."""

    def broken(module: nn.Module) -> nn.Module:
        module.get_submodule(path).register_forward_pre_hook(lambda _, given: (change(given[0]), *given[1:]))
        return module

    return broken


def parameter(name: str, change: Callable[[Tensor], Tensor]) -> Break:
    """A parameter or buffer, changed."""

    def broken(module: nn.Module) -> nn.Module:
        path, _, own = name.rpartition(".")
        value = getattr(module.get_submodule(path), own)
        value.data.copy_(change(value.data.clone()))
        return module

    return broken


def attribute(path: str, name: str, value: Any) -> Break:
    def broken(module: nn.Module) -> nn.Module:
        setattr(module.get_submodule(path), name, value)
        return module

    return broken


def result(change: Callable[[Any], Any]) -> Break:
    """What the whole module returns, changed."""
    return at("", change)


def inputs(change: Callable[..., tuple[Any, ...]]) -> Break:
    """What the whole module is given, changed; keywords in their order."""

    def broken(module: nn.Module) -> Callable[..., Any]:
        def forward(*given: Any, **named: Any) -> Any:
            changed = change(*given, *named.values())
            return module(*changed) if not named else module(**dict(zip(named, changed, strict=True)))

        return forward

    return broken


def forward(change: Callable[..., Any]) -> Break:
    """Another forward of the same weights: change(module, *inputs)."""
    return lambda module: lambda *given: change(module, *given)


def part(path: str, change: Callable[..., Any]) -> Break:
    """Another forward of one part: change(part, *inputs)."""

    def broken(module: nn.Module) -> nn.Module:
        child = module.get_submodule(path)
        child.register_forward_hook(lambda _, given, named, made: change(child, *given, **named), with_kwargs=True)
        return module

    return broken
