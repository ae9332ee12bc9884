"""What a case must return: float64 on the CPU, with weights and inputs rounded to the case's dtype, as one file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixprof.data.case import STEP, Case
from mixprof.data.errors import Unsupported, is_out_of_memory, one_line
from mixprof.lowerings import aot, cast, convert
from mixprof.lowerings.trees import tensors_of
from mixprof.machine.process import torch_dtype
from mixprof.metrics import accuracy
from mixprof.metrics.gradients import Right
from mixprof.worker import feeds, modules, training
from mixprof.worker.trees import Example, ends

INDEPENDENT = 1e-6  # relative error of an image by itself, in float64, up to which others have no part in it
NEEDS_GRADIENTS = ("does not require grad", "Inference tensors", "inference tensor")  # in an error of inference mode
RESOLUTION = "its weights are of one resolution: one engine cannot have another: use --engines each"
NO_REFERENCE = "a compiled package comes without the module that would say what is right"


@dataclass(frozen=True)
class Reference:
    """State and inputs of a case, and its right outputs. Read back from a file without executing anything."""

    state: Mapping[str, Tensor]
    inputs: list[Tensor]
    expected: list[Tensor] | None  # None: nothing says what is right, for the reason in `note`
    tolerance: float  # largest relative error that passes
    note: str | None = None  # how it was made, where that is not float64 on both ends of the batch
    of_ends: bool = False  # of the first and the last image alone
    weights_bytes: int | None = None  # of a file
    differentiates: bool = False  # the forward takes gradients, so inference mode is not for it
    right: Right | None = None  # of a training step, in the place of outputs

    def write(self, path: Path) -> None:
        temporary = path.with_name(path.name + ".tmp")
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        torch.save({**values, "right": self.right and vars(self.right)}, temporary)
        os.replace(temporary, path)

    @classmethod
    def read(cls, path: Path) -> Reference:
        values = torch.load(path, weights_only=True, mmap=True)
        right = values.pop("right", None)
        return cls(**values, right=right and Right(**right))


def prepare(request: dict[str, Any]) -> dict[str, Any]:
    """Make the reference of a module's case and write it to request["reference"]."""
    source, case = request["source"], Case.from_json(request["case"])
    torch.set_num_threads(request["threads"])
    built = modules.build(source, case)
    module, example = built.module, built.example
    if source["specialize"] is not None or case.is_anchor:
        accuracy.initialize(module, tuple(tensor[:1] for tensor in example.tensors), feeds.seed_of(case))
    if request.get("state_of"):
        modules.load_state(module, Reference.read(Path(request["state_of"])).state, RESOLUTION)
    dtype = torch_dtype(case.dtype)
    state = _rounded(modules.state_of(module), dtype)
    modules.load_state(module, state)
    inputs = [cast(cast(tensor, dtype), torch.float32) for tensor in example.tensors]
    try:
        if isinstance(module, aot.Packaged):
            reference = Reference({}, [], None, accuracy.TOLERANCES[case.dtype], NO_REFERENCE)
        elif case.step != STEP:
            right = training.right_of(example.bind(module), inputs, case, source["kind"] == "mixer", built.trained)
            reference = Reference({}, [], None, accuracy.TOLERANCES[case.dtype], right=right)
        else:
            reference = _reference(module, example, inputs, source, case)
    except Exception as error:
        if is_out_of_memory(error) or isinstance(error, Unsupported):
            raise
        if reason := feeds.explain(module, example, error):
            raise Unsupported(f"{case.model}: {reason}") from error
        raise
    floats = [tensor for tensor in reference.expected or [] if tensor.is_floating_point()]
    if not all(bool(torch.isfinite(tensor).all()) for tensor in floats):
        return {"status": "inaccurate", "reason": "the float64 reference itself holds NaN or Inf"}
    replace(reference, state=state, inputs=inputs).write(Path(request["reference"]))
    return {"status": "ok"}


def _rounded(state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """A copy of the state with each float rounded to the dtype. One tensor under two names stays one."""
    rounded: dict[int, Tensor] = {}
    for tensor in state.values():
        if id(tensor) not in rounded:
            value = cast(cast(tensor.detach(), dtype), torch.float32)
            rounded[id(tensor)] = value.clone() if value.data_ptr() == tensor.data_ptr() else value
    return {name: rounded[id(tensor)] for name, tensor in state.items()}


def _reference(
    module: nn.Module, example: Example, inputs: list[Tensor], source: Mapping[str, Any], case: Case
) -> Reference:
    """The outputs in float64, or in float32 where the module cannot; of the whole batch where images share it."""
    forward = Forward(example.bind(module))
    tolerance = accuracy.TOLERANCES[case.dtype]
    of_ends = case.batch > 2 and "batch" not in source["accepts"] and not source.get("inputs")
    is_ours = source["specialize"] is not None or case.is_anchor
    outputs, note = forward.outputs([ends(tensor) for tensor in inputs] if of_ends else inputs)
    if of_ends and not is_ours and not _independent(forward, inputs, outputs):
        of_ends = False
        outputs, note = forward.outputs(inputs)
    if not outputs:
        raise Unsupported(f"{case.model}: its forward returns no tensor: there is nothing to compare")
    reference = Reference({}, [], outputs, tolerance, note, of_ends, differentiates=forward.differentiates)
    if is_ours or not all(bool(torch.isfinite(tensor).all()) for tensor in outputs):
        return reference
    fed = [ends(tensor) for tensor in inputs] if of_ends else inputs
    torch.manual_seed(feeds.seed_of(case) // 2)
    again, _ = forward.outputs(fed)
    if accuracy.worst_error(again, outputs) > tolerance / 10:
        words = "random: two references differ, so nothing says what is right"
        return replace(reference, expected=None, note=words, of_ends=False)
    return replace(reference, tolerance=_tolerance(forward, fed, outputs, case.dtype))


class Forward:
    """A module's forward in a dtype of choice."""

    def __init__(self, module: nn.Module):
        self.module, self.differentiates = module, False

    def outputs(self, inputs: list[Tensor]) -> tuple[list[Tensor], str | None]:
        """Every output tensor in float64; in float32, with a note, where float64 does not fit or does not run."""
        try:
            return self._run(self.module.double(), inputs, torch.float64), None
        except Unsupported:
            raise
        except Exception as error:  # of the user's own code, or for want of memory
            outputs = self._run(self.module.float(), inputs, torch.float32)
            return outputs, f"float32: float64 fails ({one_line(error)})"[:200]

    def in_dtype(self, inputs: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
        """Every output tensor as plain PyTorch computes it in a dtype."""
        return self._run(convert(self.module, dtype), inputs, dtype)

    def _run(self, module: nn.Module, inputs: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
        fed = [cast(tensor, dtype).clone() for tensor in inputs]
        try:
            with torch.inference_mode(not self.differentiates), torch.no_grad():
                outputs = tensors_of(module(*fed))
                if any(tensor._version for tensor in fed):
                    outputs = [tensor.clone() for tensor in outputs]
                    if accuracy.worst_error(tensors_of(module(*fed)), outputs) > INDEPENDENT:
                        raise Unsupported(feeds.WRITES)
                return outputs
        except RuntimeError as error:
            if self.differentiates or not any(words in str(error) for words in NEEDS_GRADIENTS):
                raise
        self.differentiates = True
        return self._run(module, inputs, dtype)


def _independent(forward: Forward, inputs: list[Tensor], outputs: list[Tensor]) -> bool:
    """Whether the first image has its output whatever the others are, so that two images stand for a batch."""
    if any(not tensor.dim() or tensor.shape[0] != 2 for tensor in outputs):
        return False
    try:
        alone, _ = forward.outputs([tensor[:1] if tensor.dim() else tensor for tensor in inputs])
    except Exception:  # of the user's own code: bound to its batch
        return False
    return accuracy.worst_error(alone, [tensor[:1] for tensor in outputs]) < INDEPENDENT


def _tolerance(forward: Forward, inputs: list[Tensor], outputs: list[Tensor], dtype: str) -> float:
    """Several times what plain PyTorch loses in this dtype: only what a lowering does beyond that is judged."""
    floor = accuracy.PLAIN_FLOORS[dtype]
    element = torch_dtype(dtype)
    try:
        lost = accuracy.worst_error(forward.in_dtype(inputs, element), outputs)
    except Exception:  # it does not run in this dtype: its lowering says so
        lost = 0.0
    return max(floor, min(accuracy.PLAIN_ROOM * lost, accuracy.LARGEST))
