"""A case's training step: made of a module, its reference in float64, and checked against that before it is timed."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from mixprof import lowerings
from mixprof.data.case import STEP, Case
from mixprof.data.errors import Unsupported, one_line
from mixprof.data.launch import Launch
from mixprof.lowerings import Target, cast, convert
from mixprof.lowerings.training import recipe_of, step_of
from mixprof.machine.process import torch_dtype
from mixprof.metrics import Subject, accuracy, gradients
from mixprof.metrics.gradients import Right
from mixprof.models.aggregation import OWN_BACKWARD
from mixprof.models.layers import Formulated
from mixprof.models.step import Step
from mixprof.models.training import Recipe
from mixprof.worker import feeds

RANDOM = "it draws random numbers of its own, which this lowering or device draws otherwise than the reference"


def recipe(case: Case, trained: tuple[str, ...], *, within: bool) -> Recipe:
    """The recipe of a case, equal in the process that makes the reference and in those that are timed."""
    _, options = lowerings.parse(case.lowering)
    seed = feeds.seed_of(case) % 2**31
    return recipe_of(case.dtype, options, seed, within=within, trained=frozenset(trained))


def target_of(target: Target, case: Case, module: nn.Module, right: Right | None) -> Target:
    """The target of a case with its step; None of it for inference. module: published, which keeps its formulation."""
    if case.step == STEP:
        return target
    assert right is not None
    return replace(target, step=case.step, recipe=recipe(case, right.trained, within=right.within))


def right_of(module: nn.Module, inputs: list[Tensor], case: Case, within: bool, trained: tuple[str, ...]) -> Right:
    """What a case's step must compute: in float64, and where that fails in float32. The whole batch, in training mode.

    module: published, its weights rounded to the case's dtype. Unsupported for what cannot be trained.
    """
    for part in module.train().modules():
        if isinstance(part, Formulated) and part.override is None and getattr(part, "formulation", "") == OWN_BACKWARD:
            part.override = "matmul"  # autograd's own backward is what ours is held against
    wanted = recipe(case, trained, within=within)
    plain = replace(wanted, amp=None, by_stage=False, update=None)
    try:
        step = _ran(module, inputs, plain, torch.float64)
    except Unsupported:
        raise
    except Exception:  # of the user's own code, which fixes a dtype
        step = _ran(module, inputs, plain, torch.float32)
    assert step.loss is not None
    try:
        loss, own = float(step.loss.detach()), {name: gradient.double() for name, gradient in step.gradients().items()}
    except ValueError as error:
        raise Unsupported(f"{case.model}: {error}") from error
    if loss != loss or abs(loss) == float("inf"):
        raise Unsupported(f"{case.model}: got a loss of NaN or Inf in float64, expected a finite one: nothing to train")
    noise = step.noise.clone()
    scale = _magnitude(step, abs(loss))
    lost: dict[str, Tensor] = {}
    tolerance = accuracy.TOLERANCES[case.dtype]
    try:
        narrow = _ran(module, inputs, replace(plain, amp=wanted.amp), torch_dtype(case.dtype))
        assert narrow.loss is not None
        lost, off = narrow.gradients(), abs(float(narrow.loss.detach()) - loss) / max(scale, 1e-300)
        tolerance = max(tolerance, min(accuracy.PLAIN_ROOM * off, accuracy.LARGEST))
    except Exception as error:  # it does not train in this dtype: its lowering says so
        print(f"mixprof: plain PyTorch in {case.dtype}: {one_line(error)}")
    relative = {
        name: gradients.largest(narrow.double() - own[name]) / max(gradients.largest(own[name]), 1e-300)
        for name, narrow in lost.items()
    }
    bounds = gradients.tolerances(own, lost, case.dtype)
    return Right(loss, scale, own, bounds, noise, trained, within, tolerance, relative)


def _magnitude(step: Step, loss: float) -> float:
    """That the loss's rounding is relative to: a mean of signed products cancels, the mean |output| does not."""
    with torch.no_grad():
        return max(
            loss,
            sum(float(y.abs().mean()) for y in step.tensors(step.call(*step.at)) if y.is_floating_point()),
        )


def _ran(module: nn.Module, inputs: list[Tensor], recipe: Recipe, dtype: torch.dtype) -> Step:
    """A step that has run its backward, in a dtype, on the CPU."""
    module.zero_grad(set_to_none=True)
    convert(module, dtype)
    with torch.enable_grad():
        step = step_of(module, tuple(cast(tensor, dtype).clone() for tensor in inputs), recipe, module)
        step.forward()
        if any(tensor._version for tensor in step.at) and _drifts(step):
            raise Unsupported(feeds.WRITES)
        step.backward()
    return step


def _drifts(step: Step) -> bool:
    """Whether a step that writes into its inputs has another loss at its next forward."""
    losses = []
    for _ in range(2):
        step.forward()
        assert step.loss is not None
        losses.append(float(step.loss.detach()))
    return abs(losses[1] - losses[0]) > 1e-6 * abs(losses[0])


def check(subject: Subject, started: Launch) -> Launch:
    """The launch so far: "ok" with the errors of loss, gradients and update, or "inaccurate"."""
    step, right = subject.lowered.training, subject.right
    assert step is not None
    assert right is not None
    if step.random and (subject.case.device != "cpu" or subject.case.lowering.startswith("compile")):
        return replace(started, proof={**(started.proof or {}), "gradients_unchecked": RANDOM})
    judged = len(right.gradients) - right.rounding_alone
    started = replace(started, proof={**(started.proof or {}), "gradients_judged": [judged, len(right.gradients)]})
    if subject.case.device != "cpu":
        step.drawn = right.noise.to(step.device)
    with torch.enable_grad():
        for _ in range(2):  # whatever the first leaves behind would be in the second
            step.zero_grad()
            step.forward()
            step.backward()
        errors = gradients.compare(step, right)
        updated = (
            gradients.update(step) if subject.case.step == "train" and errors.wrong is None else gradients.Errors()
        )
    step.rest()
    launch = replace(started, relative_error=errors.loss, gradient_error=errors.gradient, update_error=updated.update)
    wrong = errors.wrong or updated.wrong
    if wrong is None:
        return launch
    return replace(launch, status="inaccurate", reason=f"training step in {subject.case.dtype}: {wrong}")
