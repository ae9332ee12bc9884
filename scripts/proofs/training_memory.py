"""Predicted against measured peak memory of a training step on this CPU, as a table in Markdown.

    python scripts/proofs/training_memory.py [--amp] [NAME ...]

Eleven mixers and four networks, each at two sizes, AdamW, one thread; in float32, or with --amp in amp_bfloat16.
Memory is no time: it may run on a busy machine. About three minutes on two idle cores.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mixprof import models
from mixprof.data.launch import StepMemory
from mixprof.lowerings import Target, eager
from mixprof.lowerings.trees import tensors_of
from mixprof.machine.devices.cpu import Cpu
from mixprof.metrics import memory_plan, step_memory
from mixprof.metrics.workspaces import WORKSPACES
from mixprof.models.step import Step
from mixprof.models.training import Recipe
from mixprof.worker.step_prediction import Unsettled

MIXERS = (
    "window_attention", "global_attention", "spatial_reduction_attention", "neighborhood_attention", "conv",
    "pointwise_conv", "depthwise_conv", "dynamic_depthwise_conv", "inhomogeneous_depthwise_conv", "local_mlp",
    "spatial_mlp",
)  # fmt: skip
NETWORKS = ("swin_t", "dwnet_t", "dynamic_dwnet_t", "i_dynamic_dwnet_t")
SIZES = {"mixer": ((14, 2), (28, 4)), "network": ((64, 2), (112, 4))}  # side, batch
PARTS = ("weights", "optimizer", "gradients", "activations", "temporaries")


def placed(name: str, side: int, batch: int, device: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A model and its input in channels_last, on "cpu" or on "meta"."""
    images = models.kind(name) == "network"
    with torch.device(device):
        module = models.build(name, resolution=side)
        x = torch.randn((batch, 3, side, side) if images else (batch, side, side, 96))
    target = Target(device, "float32", "channels_last", {}, 1, Path(), images, "")
    return eager.place(module, (x,), target)


def measured(name: str, side: int, batch: int, recipe: Recipe) -> StepMemory:
    """The allocator's peak, and the categories of a step that is followed."""
    module, inputs = placed(name, side, batch, "cpu")
    step = Step(module, module, inputs, recipe, tensors_of)
    step.train()
    step.zero_grad()
    peak = Cpu().allocator_peak(step.train)
    step.zero_grad()
    return step_memory.followed(step, "train", step_memory.Ledger(WORKSPACES, fake=False), peak)


def predicted(name: str, side: int, batch: int, recipe: Recipe) -> StepMemory:
    """The same on fake tensors."""
    module, inputs = placed(name, side, batch, "meta")
    with FakeTensorMode(allow_non_fake_inputs=True):
        step_memory.faked(module, "cpu")
        at = tuple(memory_plan.fake(list(inputs), "cpu"))
        return step_memory.predict(Unsettled(module, module, at, recipe, tensors_of), "train")


def rows(names: list[str], amp: torch.dtype | None) -> Iterator[list[str]]:
    for name in names:
        kind = models.kind(name)
        for side, batch in SIZES[kind]:
            recipe = Recipe(0, within=kind == "mixer", classifies=kind == "network", amp=amp)
            truth, guess = measured(name, side, batch, recipe), predicted(name, side, batch, recipe)
            assert truth.peak_bytes is not None
            assert guess.peak_bytes is not None
            parts = [f"{getattr(guess, f'{part}_bytes') / 2**20:.2f}" for part in PARTS]
            peaks = [f"{peak / 2**20:.2f}" for peak in (guess.peak_bytes, truth.peak_bytes)]
            yield [name, str(side), str(batch), *parts, *peaks, f"{abs(guess.peak_bytes / truth.peak_bytes - 1):.2%}"]


def main(names: list[str], amp: torch.dtype | None) -> None:
    torch.set_num_threads(1)
    header = ["model", "side", "batch", *PARTS, "predicted peak", "measured peak", "error"]
    print("| " + " | ".join(header) + " |")
    print("|---|" + "---:|" * (len(header) - 1))
    for row in rows(names or [*MIXERS, *NETWORKS], amp):
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    given = sys.argv[1:]
    main([name for name in given if name != "--amp"], torch.bfloat16 if "--amp" in given else None)
