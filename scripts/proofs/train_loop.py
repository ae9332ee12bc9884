"""Our training step of swin_t against a plain loop, interleaved: the ratio of their times with its interval, Markdown.

    python scripts/proofs/train_loop.py [--launches 6] [--quads 6] [--resolution 112] [--batch 2] [--threads N]

The plain loop is written as timm's benchmark does it (zero_grad, forward, cross entropy, backward, step), with timm's
kind of drop path and nothing of ours but the network. Each launch is a process; within it the two take turns ABBA.
About 4 minutes on two quiet cores.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mixprof.lowerings.trees import tensors_of
from mixprof.machine import process
from mixprof.models import build
from mixprof.models.layers import Residual
from mixprof.models.step import Step
from mixprof.models.training import Recipe

T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201)  # by degrees of freedom
WARM_UPS = 3


class PlainDropPath(nn.Module):
    """timm's: a Bernoulli mask by itself for every branch."""

    def __init__(self, rate: float):
        super().__init__()
        self.keep = 1.0 - rate

    def forward(self, x: Tensor) -> Tensor:
        mask = x.new_empty(x.shape[0], *[1] * (x.dim() - 1)).bernoulli_(self.keep)
        return x * mask.div_(self.keep)


def plain_loop(images: Tensor) -> Callable[[], None]:
    """A step of the plain loop."""
    model = build("swin_t", resolution=images.shape[-1]).train()
    blocks = [each for each in model.modules() if isinstance(each, Residual)]
    for number, block in enumerate(blocks[1:], start=1):
        rate = 0.2 * number / (len(blocks) - 1)
        block.drop1, block.drop2 = PlainDropPath(rate), PlainDropPath(rate)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-12, weight_decay=0.05)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    labels = torch.randint(1000, (len(images),))

    def step() -> None:
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()

    return step


def our_step(images: Tensor) -> Callable[[], None]:
    """A whole step as a launch times it."""
    model = build("swin_t", resolution=images.shape[-1])
    return Step(model, model, (images,), Recipe(seed=1, classifies=True), tensors_of).train


def launch(arguments: argparse.Namespace) -> list[float]:
    """Log of ours over plain, of each quad ours, plain, plain, ours."""
    process.prepare("cpu", "float32", arguments.threads)
    torch.manual_seed(arguments.launch)
    images = torch.randn(arguments.batch, 3, arguments.resolution, arguments.resolution)
    ours, plain = our_step(images), plain_loop(images)
    for _ in range(WARM_UPS):
        ours()
        plain()
    quads = []
    for number in range(arguments.quads):
        first, second = (ours, plain) if number % 2 else (plain, ours)
        a, b, c, d = (_seconds(each) for each in (first, second, second, first))
        ratio = float(np.log((a + d) / (b + c)))
        quads.append(ratio if number % 2 else -ratio)
    return quads


def _seconds(call: Callable[[], None]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    command = argparse.ArgumentParser(allow_abbrev=False)
    for name, usual in {"launches": 6, "quads": 6, "resolution": 112, "batch": 2, "launch": -1}.items():
        command.add_argument(f"--{name}", type=int, default=usual, help=argparse.SUPPRESS if name == "launch" else None)
    command.add_argument("--threads", type=int, default=process.default_threads())
    arguments = command.parse_args()
    if arguments.launch >= 0:
        print(json.dumps(launch(arguments)))
        return
    environment = {**os.environ, **process.worker_environment(arguments.threads, "pinned", Path("/nonexistent"))}
    medians = []
    for number in range(arguments.launches):
        own = [sys.executable, __file__, *sys.argv[1:], "--launch", str(number)]
        done = subprocess.run(own, env=environment, check=True, capture_output=True, text=True)
        medians.append(float(np.median(json.loads(done.stdout))))
    center = float(np.mean(medians))
    half = T_975[min(len(medians), 12) - 2] * float(np.std(medians, ddof=1)) / len(medians) ** 0.5
    low, ratio, high = (float(np.exp(center + shift)) for shift in (-half, 0.0, half))
    print("| network | images | launches | ours over plain | 95 % interval | one within |\n|---|---|---|---|---|---|")
    images = f"{arguments.batch}x3x{arguments.resolution}x{arguments.resolution}"
    within = "yes" if low <= 1 <= high else "no"
    print(f"| swin_t | {images} | {len(medians)} | {ratio:.3f} | {low:.3f} to {high:.3f} | {within} |")


if __name__ == "__main__":
    main()
