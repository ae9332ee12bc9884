"""Tensors inside whatever a forward returns: lists, tuples, mappings, dataclasses, nested."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from torch import Tensor


def tensors_of(value: object) -> list[Tensor]:
    """Collect every tensor of a value, in the order in which it holds them."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [tensor for item in value.values() for tensor in tensors_of(item)]
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [tensor for item in value for tensor in tensors_of(item)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [tensor for item in dataclasses.fields(value) for tensor in tensors_of(getattr(value, item.name))]
    return []
