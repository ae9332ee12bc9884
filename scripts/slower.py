"""A stage-1 mixer with extra real work in its forward, for scripts that ask whether a slow-down is found."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import models

COLUMNS = 96


class Slower(nn.Module):
    """A mixer, and a product of `rows` x 96 by 96 x 96 that nobody needs. (B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, mixer: nn.Module, rows: int):
        super().__init__()
        self.mixer, self.rows = mixer, rows
        self.work: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.rows and self.work is None:
            self.work = torch.ones(self.rows + COLUMNS, COLUMNS)
        if self.work is not None:
            torch.mm(self.work[: self.rows], self.work[self.rows :])
        mixed: Tensor = self.mixer(x)
        return mixed


def build(name: str, rows: int, channels: int, resolution: int | tuple[int, int], window: int) -> nn.Module:
    """The registered mixer `name` with extra work; none of it for rows=0."""
    return Slower(models.build(name, channels=channels, resolution=resolution, window=window), int(rows))
