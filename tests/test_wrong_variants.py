"""The planted wrong variants really are wrong: by several times what plain PyTorch loses in each of their dtypes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from breaking import awakened
from people import KINDS, Kind
from test_people_values import positional, ready
from wrong_variants import VARIANTS, Wrong

BY_NAME = {kind.model.split(":")[1]: kind for kind in KINDS if kind.macs is not None}
ROOM = 3.0  # how much wronger than its dtype's rounding a variant has to be


def floats(tree: Any, dtype: torch.dtype) -> Any:
    return tree_map_only(Tensor, lambda x: x.to(dtype) if x.is_floating_point() else x, tree)


def difference(right: object, wrong: object) -> float:
    """The largest max|y - r| / max|r| of the outputs; the share of those that differ for what is no float."""
    pairs = list(zip(tree_leaves(right), tree_leaves(wrong), strict=False))
    if len(tree_leaves(right)) != len(tree_leaves(wrong)) or any(a.shape != b.shape for a, b in pairs):
        return float("inf")
    return max(_difference_of_one(a, b) for a, b in pairs if isinstance(a, Tensor))


def _difference_of_one(right: Tensor, wrong: Tensor) -> float:
    if not right.is_floating_point():
        return float((right != wrong).double().mean())
    error = float((right.double() - wrong.double()).abs().max()) / float(right.double().abs().max())
    return error if error == error else float("inf")


def module_of(kind: Kind, dtype: torch.dtype) -> nn.Module:
    """The kind's module with weights that all matter, rounded to a dtype. Made anew: not every module can be copied."""
    module = awakened(ready(kind)[0].requires_grad_(False))
    for each in (*module.parameters(), *module.buffers()):
        if each.is_floating_point():
            each.data = each.data.to(dtype).to(each.dtype)
    return module


def lost(kind: Kind, dtype: torch.dtype) -> float:
    """What plain PyTorch loses in a dtype against float64 on the weights and inputs of that dtype."""
    given, named = floats(positional(ready(kind)[1]), dtype)
    exact = module_of(kind, dtype).double()
    narrow = module_of(kind, dtype).to(dtype)
    wide = floats((given, named), torch.float64)
    return difference(exact(*wide[0], **wide[1]), narrow(*given, **named))


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
@torch.no_grad()
def test_a_variant_is_wronger_than_its_dtypes_round(variant: Wrong):
    kind = BY_NAME[variant.model]
    given, named = floats(positional(ready(kind)[1]), torch.float64)
    right, wrong = (module_of(kind, torch.float32).double() for _ in range(2))
    error = difference(right(*given, **named), variant.broken(wrong)(*given, **named))
    complexes = any(each.is_complex() for each in right.parameters())
    rounding = [1e-6 if complexes else lost(kind, getattr(torch, dtype)) for dtype in variant.dtypes]
    assert error > ROOM * max(rounding), f"{error:.3g} against {max(rounding):.3g}"
