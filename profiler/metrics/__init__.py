"""Metrics: figures of a lowered case, taken after its timed samples. One file each, one line each in METRICS."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mixprof.data.case import Case
from mixprof.lowerings import Lowered
from mixprof.machine import devices
from mixprof.machine.devices import Device

if TYPE_CHECKING:
    import torch

    from mixprof.metrics.gradients import Right

Figure = float | int | str | None


@dataclass(frozen=True)
class Subject:
    """A lowered case: modules and files are one thing from here on."""

    case: Case
    lowered: Lowered
    expected: list[torch.Tensor] | None  # the reference's outputs; None where nothing says what is right
    tolerance: float  # largest relative error that passes
    of_ends: bool = False  # the reference is of the first and the last image alone
    formulation: tuple[str, ...] = ()
    weights_bytes: int | None = None
    differentiates: bool = False  # its forward takes gradients: inference mode is not for it
    right: Right | None = None  # of a training step: what it must compute

    @property
    def device(self) -> Device:
        return self.lowered.device or devices.of(self.case.device)

    @property
    def forward(self) -> Callable[[], object]:
        """What is timed, with what it needs ahead of it."""
        forward, before = self.lowered.forward, self.lowered.before
        assert forward is not None, "built only: there is nothing to run"
        return forward if before is None else lambda: (before(), forward())


@dataclass(frozen=True)
class Metric:
    """One metric, described without importing it."""

    module: str  # has `measure(subject)`, which returns a figure; with `own_field`, what that field holds
    asked_by: str | None = None  # the measuring setting that asks for it; None: always taken
    own_field: bool = field(default=False)  # of a launch, in its own name; else it is one of the launch's `metrics`


METRICS: dict[str, Metric] = {
    "memory": Metric("mixprof.metrics.memory", own_field=True),
    "step_memory": Metric("mixprof.metrics.step_memory", own_field=True),
    "deployment": Metric("mixprof.metrics.deployment", own_field=True),
    "energy": Metric("mixprof.metrics.energy", asked_by="energy", own_field=True),
}


def measure(name: str, subject: Subject) -> object:
    """Take one metric of a subject, by further forwards of it."""
    figures: object = importlib.import_module(METRICS[name].module).measure(subject)
    return figures


def wanted(settings: Mapping[str, object]) -> list[str]:
    """The metrics that these measuring settings ask for, in the order in which they are taken."""
    return [name for name, metric in METRICS.items() if metric.asked_by is None or settings.get(metric.asked_by)]
