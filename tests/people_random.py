"""Forwards that draw numbers or keep state, and those that depend on more than one image."""

import torch
import torch.nn.functional as F
from torch import nn

from people_forwards import Convolved


class DropoutLeftOn(Convolved):
    """F.dropout without `training=self.training`, which is on for ever."""

    def forward(self, x):
        return self.head(F.dropout(self.features(x).mean((2, 3)), 0.5))


class Shuffled(Convolved):
    """Shuffles its positions and keeps a quarter, as masked autoencoders do. -> (B, N/4, 8)."""

    def forward(self, x):
        tokens = self.features(x).flatten(2).transpose(1, 2)
        return tokens[:, torch.randperm(tokens.shape[1])[: tokens.shape[1] // 4]]


class Noise(Convolved):
    """Draws from a distribution that it predicts, as a variational autoencoder. -> dict of sample and mean."""

    def forward(self, x):
        mean, spread = super().forward(x).chunk(2, 1)
        return {"sample": mean + spread.exp() * torch.randn_like(mean), "mean": mean}


class NumPyNoise(Convolved):
    def forward(self, x):
        import numpy as np

        return super().forward(x) + float(np.random.rand())


class Remembers(Convolved):
    """Keeps a running mean of its features, in evaluation too: every forward is another one."""

    def __init__(self):
        super().__init__()
        self.register_buffer("memory", torch.zeros(8))

    def forward(self, x):
        y = self.features(x).mean((2, 3))
        self.get_buffer("memory").mul_(0.9).add_(y.mean(0), alpha=0.1)
        return self.head(y + self.memory)


class Bound(Convolved):
    """A table with a row for each image: bound to its batch."""

    def __init__(self, batch):
        super().__init__()
        self.rows = nn.Parameter(torch.randn(batch, 8))

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)) + self.rows)


class BoundByView(Convolved):
    """Reshapes to the batch that it was made for."""

    def __init__(self, batch):
        super().__init__()
        self.batch = batch

    def forward(self, x):
        return self.head(self.features(x).reshape(self.batch, 8, -1).mean(2))


class AcrossImages(Convolved):
    """Compares every image with the mean of the batch: what one image gives depends on all others."""

    def forward(self, x):
        y = self.features(x).mean((2, 3))
        return self.head(y - y.mean(0, keepdim=True))


def dropout_left_on():
    return DropoutLeftOn()


def shuffled():
    return Shuffled()


def noise():
    return Noise()


def numpy_noise():
    return NumPyNoise()


def remembers():
    return Remembers()


def bound(batch):
    return Bound(batch)


def bound_by_view(batch):
    return BoundByView(batch)


def across_images():
    return AcrossImages()
