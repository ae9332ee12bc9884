"""Memory of a case's training step, predicted on fake tensors: nothing is computed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mixprof.data.case import Case
from mixprof.data.launch import StepMemory
from mixprof.lowerings import Target, eager
from mixprof.lowerings.trees import tensors_of
from mixprof.metrics import memory_plan, step_memory
from mixprof.models.step import Step
from mixprof.worker import training
from mixprof.worker.modules import Built


class Unsettled(Step):
    """A step that does not look at values, which fake tensors do not have: its loss is not scaled."""

    def settle(self) -> None:
        """Leave the first forward to whoever predicts."""
        self.scaler = None


def predicted(source: Mapping[str, Any], case: Case, built: Built) -> StepMemory:
    """The memory of an eager step at its peak, by category. built: published, on meta."""
    recipe = training.recipe(case, built.trained, within=source["kind"] == "mixer")
    target = Target("meta", case.dtype, case.layout, {}, torch.get_num_threads(), Path(), built.example.images, "")
    inputs = tuple(tensor.to("meta") for tensor in built.example.tensors)
    bound, placed = eager.place(built.example.bind(built.module), inputs, target)
    device = "cuda" if case.device.startswith("cuda") and torch.cuda.is_available() else "cpu"
    with FakeTensorMode(allow_non_fake_inputs=True), torch.inference_mode(False), torch.enable_grad():
        step_memory.faked(built.module, device)
        at = tuple(memory_plan.fake(list(placed), device))
        return step_memory.predict(Unsettled(built.module, bound, at, recipe, tensors_of), case.step)
