"""What a lowering is given besides a module, and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixprof.data.case import STEP

if TYPE_CHECKING:
    import torch

    from mixprof.lowerings.cold import Cold
    from mixprof.lowerings.quantize import Calibration
    from mixprof.machine.devices import Device
    from mixprof.models.step import Step
    from mixprof.models.training import Recipe

Proof = dict[str, Any]  # JSON: each lowering's own


@dataclass(frozen=True)
class Target:
    """The device, precision and surroundings that a module is lowered for."""

    device: str
    dtype: str
    layout: str
    options: dict[str, str]  # of the lowering: {"max-autotune": ""} for "compile:max-autotune"
    threads: int
    cache: Path  # a folder of this run's own, shared by its launches
    images: bool  # the input is (B, 3, H, W), not a mixer's (B, H, W, C)
    key: str  # names what is built, equal for equal builds
    name: str = ""  # of the lowering, without its options
    calibration: Calibration | None = None  # for int8
    step: str = STEP
    recipe: Recipe | None = None  # of a training step


@dataclass(frozen=True)
class Lowered:
    """A forward that is ready to run, with its inputs already on the device."""

    forward: Callable[[], object] | None  # enqueues one forward; None: built, and no device here to run it
    read: Callable[[], torch.Tensor]  # runs one forward into a poisoned buffer where it owns one; the output on the CPU
    build_s: float
    build_cached: bool | None = None  # None: nothing is built
    artifact_bytes: int | None = None
    proof: Proof = field(default_factory=dict)
    compilations: Callable[[], int] = lambda: 0  # so far in this process: growth among samples is a recompile
    runs_in_torch: bool = True  # its memory comes from torch's allocator
    device: Device | None = None  # its own; None: the case's as torch has it
    layer_times: Callable[[int], list[tuple[str, float]]] | None = None  # forwards -> (layer, milliseconds)
    close: Callable[[], None] = lambda: None  # frees what it holds on the device
    read_all: Callable[[], list[torch.Tensor]] | None = None  # like `read`, every output
    definition: Callable[[], list[torch.Tensor]] | None = None  # of int8: what the quantized graph says is right
    before: Callable[[], object] | None = None  # untimed, ahead of each forward: of a backward, the forward
    training: Step | None = None  # of which `forward` is a part or the whole
    cold: Cold | None = None  # how a process that deploys its artifact loads it; None: no such process

    def outputs(self) -> list[torch.Tensor]:
        """Run one forward; every output tensor on the CPU."""
        return self.read_all() if self.read_all is not None else [self.read()]
