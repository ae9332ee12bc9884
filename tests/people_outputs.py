"""Modules that return more than one tensor, as people return them: for real worker processes."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import torch
from torch import nn

Pair = namedtuple("Pair", ["fine", "coarse"])


@dataclass
class Features:
    """What a backbone hands on."""

    fine: torch.Tensor
    coarse: torch.Tensor
    mask: torch.Tensor | None = None


class ModelOutput(OrderedDict):
    """A dict with its values as attributes, as large libraries return it."""

    def __getattr__(self, name):
        if name in self:
            return self[name]
        raise AttributeError(name)


class Backbone(nn.Module):
    """Two strided convolutions. (B, 3, 64, 64) -> (B, 16, 16, 16) and (B, 32, 8, 8), 327,680 MACs an image."""

    def __init__(self):
        super().__init__()
        self.fine = nn.Conv2d(3, 16, 4, stride=4)
        self.coarse = nn.Conv2d(16, 32, 2, stride=2)

    def features(self, x):
        fine = self.fine(x)
        return fine, self.coarse(torch.relu(fine))


class Dict(Backbone):
    def forward(self, x):
        fine, coarse = self.features(x)
        return {"fine": fine, "coarse": coarse}


class Tuple(Backbone):
    def forward(self, x):
        return self.features(x)


class List(Backbone):
    def forward(self, x):
        return list(self.features(x))


class NamedTuple(Backbone):
    def forward(self, x):
        return Pair(*self.features(x))


class Dataclass(Backbone):
    def forward(self, x):
        return Features(*self.features(x))


class OrderedOutput(Backbone):
    def forward(self, x):
        fine, coarse = self.features(x)
        return ModelOutput(last_hidden_state=coarse, hidden_states=(fine, coarse))


class Nested(Backbone):
    def forward(self, x):
        fine, coarse = self.features(x)
        return {"maps": [fine, (coarse, {"mean": coarse.mean((2, 3))})], "name": "nested", "none": None}


class Indices(Backbone):
    """Floats, and the integers and truth values that follow from them."""

    def forward(self, x):
        fine, coarse = self.features(x)
        top = coarse.mean((2, 3)).topk(3)
        return {"scores": top.values, "classes": top.indices, "positive": fine.mean((1, 2, 3)) > 0}


class WholeBatch(Backbone):
    """Outputs without a batch axis: a loss, and a mean over all images."""

    def forward(self, x):
        fine, coarse = self.features(x)
        return fine.pow(2).mean(), coarse.mean(0)


class Halves(Backbone):
    """Outputs of several types: bytes, float32 whatever the input is, the input's own."""

    def forward(self, x):
        fine, coarse = self.features(x)
        return (fine.sigmoid() * 255).to(torch.uint8), coarse.float(), coarse


def dictionary():
    return Dict()


def pair():
    return Tuple()


def listed():
    return List()


def named_tuple():
    return NamedTuple()


def data_class():
    return Dataclass()


def model_output():
    return OrderedOutput()


def nested():
    return Nested()


def indices():
    return Indices()


def whole_batch():
    return WholeBatch()


def several_types():
    return Halves()


class Weighted(nn.Module):
    """Self-attention that returns its weights with its output. (B, 3, H, W) -> (B, N, 16), (B, N, N)."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 8, stride=8)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        return self.attention(x, x, x)


def attention_weights():
    return Weighted()


class Detector(nn.Module):
    """One dictionary an image, of as many boxes as have a score above one half, as detectors return them."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 5, 8, stride=8)

    def forward(self, images):
        found = []
        for x in self.patch(images).flatten(2).transpose(1, 2):
            scores = x[:, 4].sigmoid()
            keep = scores > 0.5
            found.append({"boxes": x[keep, :4], "scores": scores[keep]})
        return found


def detector():
    return Detector()
