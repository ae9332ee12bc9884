"""MACs of a training step beside torch's FlopCounterMode, and every mixer's backward as a formula, in Markdown.

    python scripts/proofs/training_counts.py

Nothing is computed: all of it runs on `meta`. About two minutes.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from mixprof import models
from mixprof.metrics import step_costs
from mixprof.plan.files import Given
from mixprof.run import counting

NETWORKS = ("swin_t", "dwnet_t", "dynamic_dwnet_t", "i_dynamic_dwnet_t")
MIXERS = (
    "window_attention", "global_attention", "spatial_reduction_attention", "neighborhood_attention", "conv",
    "pointwise_conv", "depthwise_conv", "dynamic_depthwise_conv", "inhomogeneous_depthwise_conv", "local_mlp",
    "spatial_mlp",
)  # fmt: skip
BATCH, SIDE = 2, 224


class Grouped(TorchDispatchMode):
    """What torch counts too many of in the weight gradients of grouped convolutions: those of all pairs of groups."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution_backward.default:
            gradient, _, weight, *_, groups, asked = args
            self.macs += gradient.numel() * weight[0].numel() * (groups - 1) * bool(asked[1])
        return result


def network(name: str) -> tuple[nn.Module, Tensor]:
    with torch.device("meta"):
        module = step_costs.prepare(models.build(name, resolution=SIDE))
        return module, torch.empty(BATCH, 3, SIDE, SIDE)


def in_mode(mode: Any, run: Callable[[], object]) -> Any:
    with mode:
        run()
    return mode


def networks() -> None:
    print("| network | forward | backward | step | FlopCounterMode / 2 | difference | of grouped weights | rest |")
    print("|---|" + "---:|" * 7)
    for name in NETWORKS:
        module, images = network(name)
        forward, train = (step_costs.count(step, module, [images], module) for step in ("forward", "train"))
        assert not train.uncounted_ops

        def step(module: nn.Module = module, images: Tensor = images) -> None:
            step_costs.backward(module(images))

        theirs = in_mode(FlopCounterMode(display=False), step).get_total_flops() // 2
        explained, difference = in_mode(Grouped(), step).macs, theirs - train.macs
        figures = (forward.macs, train.backward_macs, train.macs, theirs, difference, explained, difference - explained)
        print(f"| {name} | " + " | ".join(f"{figure:,}" for figure in figures) + " |", flush=True)


def mixers() -> None:
    print("\n| mixer | MACs of its backward | least bytes of a whole step, float32 |")
    print("|---|---|---|")
    for name in MIXERS:
        backward, train = (counting.formulas(name, models, Given(), step) for step in ("backward", "train"))
        print(f"| {name} | {backward.macs.text()} | {train.min_bytes.text()} |", flush=True)


if __name__ == "__main__":
    networks()
    mixers()
