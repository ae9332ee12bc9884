"""What a forward does that is no arithmetic of one dtype: forces types, looks at values, differentiates."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint


class Convolved(nn.Module):
    """A convolution of 3 to 8 channels with a head of 4, what the others here add to. 221,184 + 32 MACs at 32."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 4)

    def features(self, x):
        return F.relu(self.conv(x))

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


class Float32Norm(Convolved):
    """A norm that is always computed in float32, as language models do."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, x):
        y = self.features(x).mean((2, 3))
        dtype, y = y.dtype, y.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.head((self.scale.float() * y).to(dtype))


class Float32Layer(Convolved):
    """A layer kept in float32 whatever the others are: its input is turned into float32, its weights have to be."""

    def __init__(self):
        super().__init__()
        self.head.float()

    def forward(self, x):
        with torch.autocast("cpu", enabled=False):
            return F.linear(self.features(x).mean((2, 3)).float(), self.head.weight.float(), self.head.bias.float())


class StaysFloat32(Convolved):
    """A head that refuses to be anything but float32: `_apply` is overridden, as some libraries do."""

    def _apply(self, function, recurse=True):
        super()._apply(function)
        self.head.float()
        return self

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)).float())


class Autocast(Convolved):
    """Autocast inside the forward, as people leave it in after training."""

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return super().forward(x)


class NotInDouble(Convolved):
    """Refuses float64: its kernel was written for float32 and narrower types alone."""

    def forward(self, x):
        if x.dtype == torch.float64:
            raise RuntimeError("expected scalar type Float but found Double")
        return super().forward(x)


class Item(Convolved):
    """Looks at a value and scales by it."""

    def forward(self, x):
        largest = x.abs().max().item()
        return self.head(self.features(x / max(largest, 1e-6)).mean((2, 3)))


class Branch(Convolved):
    """Goes another way for pictures of another brightness; both ways cost the same."""

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3))) if x.sum() > 0 else self.head(self.features(-x).mean((2, 3)))


class BooleanMask(Convolved):
    """Keeps the positions that are positive, however many these are, and sums each image's."""

    def forward(self, x):
        y = self.features(x)
        return (
            torch.stack([each[:, keep].sum(1) for each, keep in zip(y, x.mean(1) > 0, strict=True)]) / y[0, 0].numel()
        )


class NumPy(Convolved):
    """Computes a size, and a table, in NumPy."""

    def forward(self, x):
        import numpy as np

        table = torch.from_numpy(np.hanning(x.shape[-1]).astype("float32")).to(x)
        return super().forward(x * table * math.sqrt(2))


class Values(Convolved):
    """Turns its output into a NumPy array on the way, which needs real values."""

    def forward(self, x):
        y = self.features(x).mean((2, 3))
        order = y.detach().float().cpu().numpy().argsort(axis=0)
        return self.head(y[torch.from_numpy(order[0]) % len(y), torch.arange(8)])


class Guided(Convolved):
    """The gradient of its score by the image, taken inside the forward. -> (B, 3, H, W)."""

    def forward(self, x):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            score = self.head(self.features(x).mean((2, 3))).sum()
        return torch.autograd.grad(score, x)[0]


class Checkpointed(Convolved):
    """Activation checkpointing, left on."""

    def forward(self, x):
        return self.head(checkpoint(self.features, x, use_reentrant=False).mean((2, 3)))


class Squash(torch.autograd.Function):
    """An operator with a backward of its own."""

    @staticmethod
    def forward(ctx, x):
        return x * torch.sigmoid(1.702 * x)

    @staticmethod
    def backward(ctx, gradient):
        raise NotImplementedError


class OwnFunction(Convolved):
    def forward(self, x):
        return self.head(Squash.apply(self.conv(x)).mean((2, 3)))


def float32_norm():
    return Float32Norm()


def float32_layer():
    return Float32Layer()


def stays_float32():
    return StaysFloat32()


def autocast():
    return Autocast()


def not_in_double():
    return NotInDouble()


def item():
    return Item()


def branch():
    return Branch()


def boolean_mask():
    return BooleanMask()


def from_numpy():
    return NumPy()


def values():
    return Values()


def guided():
    return Guided()


def checkpointed():
    return Checkpointed()


def own_function():
    return OwnFunction()
