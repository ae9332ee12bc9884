"""Is a training step right: its loss, every parameter's gradient and the change of every parameter, in float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mixprof.metrics import accuracy
from mixprof.models import training
from mixprof.models.step import Step

ROOM = 10.0  # times the rounding of plain PyTorch, of a gradient that is nothing else
MISSING = 0.9  # of a gradient: more is as if there were none
ROUNDINGS = 16.0  # of an update, in units in the last place of its parts


@dataclass(frozen=True)
class Right:
    """What a step must compute, in float64 on the CPU, by the reference's process."""

    loss: float
    loss_scale: float  # that its rounding is relative to: of a sum with cancellation more than the loss
    gradients: Mapping[str, Tensor]
    tolerances: Mapping[str, float]  # of each gradient: the largest absolute error that passes
    noise: Tensor  # of the masks of drop paths
    trained: tuple[str, ...]
    within: bool  # a mixer, whose input takes a gradient, too
    loss_tolerance: float  # relative to that
    lost: Mapping[str, float] = field(default_factory=dict)  # relative error of each gradient in plain PyTorch

    @property
    def rounding_alone(self) -> int:
        """Gradients of which plain PyTorch keeps nothing in this dtype: a batch norm over few values, or before one."""
        return sum(lost > accuracy.LARGEST for lost in self.lost.values())


@dataclass(frozen=True)
class Errors:
    """How far a step is from that. `wrong`: the first thing beyond its tolerance, in words."""

    loss: float | None = None
    gradient: float | None = None
    update: float | None = None
    wrong: str | None = None
    by_parameter: Mapping[str, float] = field(default_factory=dict)  # relative error of each gradient


def largest(tensor: Tensor) -> float:
    return float(tensor.abs().max()) if tensor.numel() else 0.0


def tolerances(gradients: Mapping[str, Tensor], plain: Mapping[str, Tensor], dtype: str) -> dict[str, float]:
    """The largest absolute error of each gradient: by dtype of its own size, or what plain PyTorch loses, with room.

    A gradient that is zero by construction (a bias before a batch norm) is nothing but rounding: its size says nothing.
    """
    bounds = {}
    for name, each in gradients.items():
        size, lost = largest(each), largest(plain[name].double().cpu() - each) if name in plain else 0.0
        judged = min(accuracy.PLAIN_ROOM * lost, MISSING * size)
        bounds[name] = max(
            accuracy.TOLERANCES[dtype] * size, judged if lost <= accuracy.LARGEST * size else ROOM * lost
        )
    return bounds


def compare(step: Step, right: Right) -> Errors:
    """Loss and gradients of a step that has run its backward. The gradient's error is over max|r| of its parameter."""
    assert step.loss is not None
    loss = float(step.loss.detach().double())
    if loss != loss or loss in (float("inf"), float("-inf")):
        return Errors(wrong="got a loss of NaN or Inf, expected a finite one")
    loss_error = abs(loss - right.loss) / max(right.loss_scale, 1e-300)
    got = step.gradients()
    if set(got) != set(right.gradients):
        absent = ", ".join(sorted(set(right.gradients) ^ set(got))[:3])
        return Errors(loss_error, wrong=f"got a gradient where none is expected, or none where one is: {absent}")
    by_parameter, where = {}, None
    for name, expected in right.gradients.items():
        off = largest(got[name].double().cpu() - expected.double())
        if not off <= right.tolerances[name] and where is None:
            where = f"gradient of {name}: off by {off:.2g}, expected at most {right.tolerances[name]:.2g}"
        if right.lost.get(name, 0.0) <= accuracy.LARGEST:  # else it is rounding alone
            by_parameter[name] = off / max(largest(expected), 1e-300)
    if not loss_error <= right.loss_tolerance:
        where = f"relative error of the loss: {loss_error:.2g}, expected at most {right.loss_tolerance:.2g}"
    return Errors(loss_error, max(by_parameter.values(), default=0.0), None, where, by_parameter)


def update(step: Step) -> Errors:
    """Run the optimizer on the gradients that are there, and compare with its float64; parameters are put back.

    The bound follows from the roundings of its own arithmetic, in the parameter's dtype: no gradient is assumed.
    """
    step.set_rate(training.LEARNING_RATE)
    named = {name: each for name, each in step.module.named_parameters() if each.grad is not None}
    gradients = {name: each.double() for name, each in step.gradients().items() if name in named}
    before = {name: each.detach().clone() for name, each in named.items()}
    states = {name: _state(step, each) for name, each in named.items()}
    step.optimize()
    worst, size, wrong = 0.0, 1e-300, None
    for name, parameter in named.items():
        expected, bound = _expected(name, before[name], gradients[name], states[name], step.recipe.optimizer)
        off = (parameter.detach().double() - before[name].double() - expected).abs()
        worst, size = max(worst, largest(off)), max(size, largest(expected))
        if wrong is None and not bool((off <= bound).all()):
            wrong = (
                f"update of {name}: off by {largest(off):.2g}, expected what {step.recipe.optimizer} does in float64"
            )
        with torch.no_grad():
            parameter.copy_(before[name])
    return Errors(update=worst / size, wrong=wrong)


def _state(step: Step, parameter: Tensor) -> dict[str, Tensor]:
    """A copy of what an optimizer keeps of a parameter, in float64."""
    return {name: torch.as_tensor(each).double().clone() for name, each in step.optimizer.state[parameter].items()}


def _expected(
    name: str, parameter: Tensor, gradient: Tensor, state: Mapping[str, Tensor], optimizer: str
) -> tuple[Tensor, Tensor]:
    """The change of a parameter in float64, and how far roundings can be from it (Loshchilov, Hutter 2019, alg. 2)."""
    rate, unit = training.LEARNING_RATE, torch.finfo(parameter.dtype).eps / 2
    decay = training.WEIGHT_DECAY * training.decays(name, parameter)
    old, zero = parameter.double(), torch.zeros_like(gradient)
    if optimizer == "sgd":
        momentum, pull = training.MOMENTUM * state.get("momentum_buffer", zero), gradient + decay * old
        change, parts = -rate * (momentum + pull), rate * (momentum.abs() + gradient.abs() + decay * old.abs())
        return change, ROUNDINGS * unit * (old.abs() + parts)
    (first, second), count = training.BETAS, float(state.get("step", torch.zeros(()))) + 1
    mean, square = first * state.get("exp_avg", zero), second * state.get("exp_avg_sq", zero)
    scale = ((square + (1 - second) * gradient**2) / (1 - second**count)).sqrt() + training.EPSILON
    pull = (mean + (1 - first) * gradient) / (1 - first**count) / scale
    parts = (mean.abs() + (1 - first) * gradient.abs()) / (1 - first**count) / scale
    cancelled = torch.finfo(torch.float32).eps / (1 - second**count)  # of the correction, where float32 computes it
    return -rate * (pull + decay * old), ROUNDINGS * unit * (old.abs() + rate * parts) + rate * parts * cancelled
