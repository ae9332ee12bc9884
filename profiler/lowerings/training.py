"""A training step of a module, eager or with forward and backward compiled: the whole, or one of its parts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mixprof.data.errors import Unsupported
from mixprof.lowerings import Lowered, Target, compiled
from mixprof.lowerings.eager import place
from mixprof.lowerings.trees import tensors_of
from mixprof.machine import devices
from mixprof.models import training
from mixprof.models.step import RESTING, Step
from mixprof.models.training import Recipe

AMP = {"amp_float16": torch.float16, "amp_bfloat16": torch.bfloat16}


def recipe_of(dtype: str, options: dict[str, str], seed: int, *, within: bool, trained: frozenset[str]) -> Recipe:
    """The recipe that a case's dtype and the options of its lowering ask for."""
    update = options.get("update")
    return Recipe(
        seed,
        options.get("optimizer", "adamw"),
        None if update == "compiled" else update,
        AMP.get(dtype),
        options.get("batchnorm") != "eval",
        "checkpoint" in options,
        classifies=not within,
        within=within,
        trained=trained,
    )


def step_of(module: nn.Module, inputs: tuple[Tensor, ...], recipe: Recipe, call: Callable[..., object]) -> Step:
    """The step of a placed module. Unsupported for what cannot be trained, in words."""
    try:
        return Step(module, call, inputs, recipe, tensors_of)
    except ValueError as error:
        if "more than 1 value per channel" in str(error):
            words = "a batch norm in training mode needs several values for each channel: use --batches 2, or "
            raise Unsupported(f"{words}the lowering's option batchnorm=eval") from error
        raise Unsupported(str(error)) from error


def lower(module: nn.Module, inputs: tuple[Tensor, ...], target: Target) -> Lowered:
    """The step, or the part of it that target.step names, as a lowering."""
    assert target.recipe is not None
    module, inputs = place(module, inputs, target)
    start = time.perf_counter()
    with torch.enable_grad():
        if target.name == "compile":
            step, details = _compiled(module, inputs, target)
        else:
            step, details = step_of(module, inputs, target.recipe, module), {}
        timed = {"forward": step.forward, "backward": step.backward, "train": step.train}[target.step]
        step.train()
        step.zero_grad()
    build_s = time.perf_counter() - start
    proof = {**details.pop("proof", {}), **_told(step, target)}
    return Lowered(
        timed,
        step.loss_on_cpu,
        build_s,
        proof=proof,
        before=step.ahead if target.step == "backward" else None,
        training=step,
        **details,
    )


def _told(step: Step, target: Target) -> dict[str, Any]:
    """What a record says of a step: its loss, optimizer, scale and random numbers."""
    assert step.recipe is not None
    told = {
        "optimizer": step.recipe.optimizer,
        "update": target.options.get("update") or "torch's own choice",
        "drop_paths": sum(isinstance(each, training.DropPath) for each in step.module.modules()),
        "random": step.random or None,
        "loss_scale": None if step.scaler is None else step.scaler.get_scale(),
    }
    return {"training": {name: value for name, value in told.items() if value is not None}}


def _compiled(module: nn.Module, inputs: tuple[Tensor, ...], target: Target) -> tuple[Step, dict[str, Any]]:
    """A step whose forward and backward are compiled, and with update=compiled its optimizer."""
    mode = next((name for name in target.options if name in compiled.MODES), "default")
    counted = compiled.Counted("compile")
    assert target.recipe is not None
    step = step_of(module, inputs, target.recipe, module)
    step.call = torch.compile(module, dynamic=False, mode=mode)
    if target.options.get("update") == "compiled":
        if step.scaler is not None:
            raise Unsupported("update=compiled takes no gradient scaler: use amp_bfloat16, or leave it out")
        rate = torch.tensor(RESTING, device=step.device)
        step.optimizer = training.optimizer_of(module.named_parameters(), step.recipe, rate)
        step.update = torch.compile(step.optimizer.step, dynamic=False)
    for _ in range(3):
        step.train()
    devices.of(target.device).synchronize()
    return step, counted.details(mode)
