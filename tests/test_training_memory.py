"""Memory of a training step: its categories against closed forms, and the prediction against the allocator's peak."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mixprof import models
from mixprof.data.launch import StepMemory
from mixprof.lowerings.trees import tensors_of
from mixprof.machine.devices.cpu import Cpu
from mixprof.metrics import step_memory
from mixprof.metrics.step_memory import Ledger, predict
from mixprof.models.step import Step
from mixprof.models.training import Recipe
from mixprof.worker.step_prediction import Unsettled

B, WIDE, HIDDEN = 64, 32, 256


def steps(make: Callable[[], nn.Module], shape: tuple[int, ...], **more: object) -> tuple[StepMemory, StepMemory]:
    """A module's whole step as it is measured here, and as it is predicted."""
    recipe = Recipe(0, within=len(shape) != 4 or shape[1] != 3, **more)  # type: ignore[arg-type]
    module = make()
    step = Step(module, module, (torch.randn(shape),), recipe, tensors_of)
    step.train()
    step.zero_grad()
    peak = Cpu().allocator_peak(step.train)
    step.zero_grad()
    measured = step_memory.followed(step, "train", Ledger(step_memory.WORKSPACES, fake=False), peak)
    with FakeTensorMode(allow_non_fake_inputs=True):
        fake = step_memory.faked(make(), "cpu")
        return measured, predict(Unsettled(fake, fake, (torch.empty(shape),), recipe, tensors_of), "train")


def test_categories_of_a_step_are_its_closed_forms():
    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(WIDE, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, WIDE))

    parameters = 2 * WIDE * HIDDEN + HIDDEN + WIDE
    for memory in steps(make, (B, WIDE)):
        assert memory.weights_bytes == 4 * parameters
        assert memory.optimizer_bytes == 4 * 2 * parameters + 4 * 4  # two moments, and how many steps there were
        assert memory.activations_by_module is not None
        assert memory.activations_by_module["1"] == 4 * B * HIDDEN  # a ReLU keeps its output, which the next one shares
        assert memory.activations_by_module["2"] == memory.activations_by_module["0"] == 0
        parts = (memory.gradients_bytes, memory.activations_bytes, memory.temporaries_bytes)
        assert memory.peak_bytes == 12 * parameters + 16 + sum(part or 0 for part in parts)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_gradients_of_a_wide_layer_are_the_peak(optimizer):
    for memory in steps(lambda: nn.Linear(1024, 512, bias=False), (2, 1024), optimizer=optimizer):
        assert memory.gradients_bytes == memory.weights_bytes == 4 * 1024 * 512
        state = 2 * 4 * 1024 * 512 + 4 if optimizer == "adamw" else 4 * 1024 * 512
        assert memory.optimizer_bytes == state


@pytest.mark.parametrize("name", ["window_attention", "conv", "dynamic_depthwise_conv", "inhomogeneous_depthwise_conv"])
def test_predicted_peaks_are_within_a_tenth_of_measured_ones(name):
    measured, predicted = steps(lambda: models.build(name, resolution=14, channels=64), (2, 14, 14, 64))
    assert measured.peak_bytes is not None
    assert predicted.peak_bytes == pytest.approx(measured.peak_bytes, rel=0.1)
    assert predicted.activations_by_module == measured.activations_by_module
