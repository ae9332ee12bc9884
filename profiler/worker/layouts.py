"""A module lowered in its case's layout; a default one that it cannot take becomes contiguous, and is said."""

from __future__ import annotations

from dataclasses import replace

import torch

from mixprof import lowerings
from mixprof.data.case import Case
from mixprof.data.errors import Unavailable, Unsupported, is_out_of_memory, one_line
from mixprof.lowerings import Lowered, Target


def lower(
    case: Case, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], target: Target, may_fall_back: bool
) -> Lowered:
    """Lower in the case's layout; a default one that does not suit becomes contiguous, and the proof says so."""
    try:
        return lowerings.lower(case.lowering, module, inputs, target)
    except (Unavailable, Unsupported):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        failure = error
    if case.layout == "contiguous" or not lowerings.entry_of(case.lowering).layouts:
        raise _refused(case, failure) from failure
    lowered = contiguous(case, module, inputs, target, one_line(failure)[:200])
    if not may_fall_back:
        raise Unsupported(
            f"{case.model} does not run in channels_last ({one_line(failure)}): use --layouts contiguous, or .reshape "
            "in place of .view in its forward"
        ) from failure
    return lowered


def contiguous(
    case: Case, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], target: Target, reason: str
) -> Lowered:
    """Lower in the contiguous layout, and say so in the proof."""
    torch._dynamo.reset()
    try:
        lowered = lowerings.lower(case.lowering, module, inputs, replace(target, layout="contiguous"))
    except Exception as error:
        raise _refused(case, error) from error
    return replace(lowered, proof={**lowered.proof, "layout": "contiguous", "layout_reason": reason})


def _refused(case: Case, error: Exception) -> Exception:
    """An error of a module that ran for its reference, in float32 and eager mode, and does not run so lowered."""
    if is_out_of_memory(error):
        return error
    if lowerings.entry_of(case.lowering).fuses:
        return Unsupported(f"lowering '{case.lowering}': {one_line(error)}")
    if case.dtype not in ("float32", "tf32"):
        return Unsupported(f"{case.model} does not run in {case.dtype} ({one_line(error)}): use --dtypes float32")
    return error
