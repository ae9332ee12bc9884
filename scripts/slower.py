"""A stage-1 mixer with extra real work in its forward, for scripts that ask whether a slow-down is found."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import models

CHUNK = 4096  # elements: below what torch gives to a second thread


class Slower(nn.Module):
    """A mixer, and the sines of so many numbers, which nobody needs. (B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, mixer: nn.Module, elements: int):
        super().__init__()
        self.mixer, self.elements = mixer, elements
        self.work: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.elements and self.work is None:
            self.work = torch.ones(self.elements)
        if self.work is not None:
            for part in self.work.split(CHUNK):
                torch.sin(part)
        mixed: Tensor = self.mixer(x)
        return mixed


def build(name: str, elements: int, channels: int, resolution: int | tuple[int, int], window: int) -> nn.Module:
    """The registered mixer `name` with extra work; none of it for elements=0."""
    return Slower(models.build(name, channels=channels, resolution=resolution, window=window), int(elements))
