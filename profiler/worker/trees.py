"""A forward's arguments, and the forward as a function of their tensors alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree


class Bound(nn.Module):
    """A module as a function of tensors alone, whatever its forward takes: what every lowering is given."""

    def __init__(self, module: nn.Module, call: Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]):
        super().__init__()
        self.module, self.call = module, call

    def forward(self, *tensors: Tensor) -> Any:
        args, kwargs = self.call(*tensors)
        return self.module(*args, **kwargs)


@dataclasses.dataclass(frozen=True)
class Example:
    """What a forward is called with."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    images: bool = False  # (B, C, H, W) pictures: a layout means something to them

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return tuple(leaf for leaf in pytree.tree_leaves((self.args, dict(self.kwargs))) if isinstance(leaf, Tensor))

    def bind(self, module: nn.Module) -> nn.Module:
        """The module as a function of this example's tensors; itself where that is what it is."""
        if not self.kwargs and all(isinstance(argument, Tensor) for argument in self.args):
            return module
        leaves, structure = pytree.tree_flatten((self.args, dict(self.kwargs)))
        places = [isinstance(leaf, Tensor) for leaf in leaves]

        def call(*tensors: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
            rest = iter(tensors)
            filled = [next(rest) if place else leaf for place, leaf in zip(places, leaves, strict=True)]
            args, kwargs = pytree.tree_unflatten(filled, structure)
            return args, kwargs

        return Bound(module, call)


def ends(tensor: Tensor) -> Tensor:
    """The first and the last image of a batch."""
    return tensor[[0, -1]] if tensor.dim() and tensor.shape[0] > 2 else tensor
