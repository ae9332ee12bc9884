"""Weights, tables and tensors kept where a state_dict does not see them; weights with a meaning of their own."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, prune


class PlainTensors(nn.Module):
    """A mean and a deviation as plain attributes, no buffers. (B, 3, H, W) -> (B, 4)."""

    def __init__(self):
        super().__init__()
        self.mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
        self.std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        return self.conv((x - self.mean) / self.std).mean((2, 3))


def plain_tensors():
    return PlainTensors()


class CachedTable(nn.Module):
    """A table of positions made at the first forward and kept. (B, 3, H, W) -> (B, N, 8)."""

    def __init__(self):
        super().__init__()
        self.patch, self.mix = nn.Conv2d(3, 8, 8, stride=8), nn.Linear(8, 8)
        self.tables = {}

    def table(self, length):
        if length not in self.tables:
            angles = torch.arange(length)[:, None] / 100 ** (torch.arange(4)[None] / 4)
            self.tables[length] = torch.cat([angles.sin(), angles.cos()], 1)
        return self.tables[length]

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        return self.mix(x + self.table(x.shape[1]).to(x.dtype))


def cached_table():
    return CachedTable()


class Positions(nn.Module):
    """Positions by arange without a device, looked up. (B, 3, H, W) -> (B, N, 8)."""

    def __init__(self):
        super().__init__()
        self.patch, self.positions = nn.Conv2d(3, 8, 8, stride=8), nn.Embedding(64, 8)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        return x + self.positions(torch.arange(x.shape[1]))


def positions():
    return Positions()


def lazy():
    """Makes a network whose layers learn their widths at the first forward."""
    return nn.Sequential(nn.LazyConv2d(8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10))


class NoSelf(nn.Module):
    """A frozen network: its train() forgets to return itself, and so its eval() does. (B, 3, H, W) -> (B, 4)."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)

    def train(self, mode=True):
        for each in self.children():
            each.train(False)

    def forward(self, x):
        return self.bn(self.conv(x)).mean((2, 3))


def train_returns_nothing():
    return NoSelf()


class Tied(nn.Module):
    """One convolution run three times, and its weight once more as a Linear's. (B, 3, H, W) -> (B, 8)."""

    def __init__(self):
        super().__init__()
        self.stem, self.step = nn.Conv2d(3, 8, 4, stride=4), nn.Conv2d(8, 8, 1)
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.again = self.step

    def forward(self, x):
        x = self.again(F.relu(self.step(F.relu(self.step(self.stem(x))))))
        return self.second(F.relu(self.first(x.mean((2, 3)))))


def tied():
    return Tied()


LAPLACE = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]).expand(3, 1, 3, 3)


class Checkpoint(nn.Module):
    """Weights with a meaning: refuses to run with others than those it was given. (B, 3, H, W) -> (B, 3, H, W)."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False)
        self.conv.weight.data.copy_(LAPLACE)

    def forward(self, x):
        if self.conv.weight.device.type == "cpu" and type(x) is torch.Tensor:
            expected = LAPLACE.to(self.conv.weight.dtype)
            assert torch.equal(self.conv.weight, expected), "the weights are not those of the checkpoint"
        return self.conv(x)


def checkpoint():
    return Checkpoint()


def checkpoint_in_half():
    """Makes a network whose weights are stored in bfloat16."""
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1)).bfloat16()


def checkpoint_in_double():
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1)).double()


class Scaled(nn.Module):
    """A residual branch behind a LayerScale of 1e-6 and a head of zeros. (B, 3, H, W) -> zeros, (B, 5)."""

    def __init__(self):
        super().__init__()
        self.stem, self.branch = nn.Conv2d(3, 8, 4, stride=4), nn.Conv2d(8, 8, 3, padding=1)
        self.gamma = nn.Parameter(1e-6 * torch.ones(8, 1, 1))
        self.head = nn.Linear(8, 5)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x):
        x = self.stem(x)
        return self.head((x + self.gamma * self.branch(x)).mean((2, 3)))


def zeros():
    return Scaled()


def weight_norm():
    """Makes two layers with normalised weights, each by its parametrization. (B, 3, H, W) -> (B, 4, H, W)."""
    first = parametrizations.weight_norm(nn.Conv2d(3, 8, 3, padding=1))
    return nn.Sequential(first, nn.ReLU(), parametrizations.spectral_norm(nn.Conv2d(8, 4, 1)))


def old_weight_norm():
    """Makes the same with the hooks of old."""
    first = nn.utils.weight_norm(nn.Conv2d(3, 8, 3, padding=1))
    return nn.Sequential(first, nn.ReLU(), nn.utils.spectral_norm(nn.Conv2d(8, 4, 1)))


def orthogonal():
    head = parametrizations.orthogonal(nn.Linear(8, 8))
    return nn.Sequential(nn.Conv2d(3, 8, 8, stride=8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


def pruned():
    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    prune.l1_unstructured(module[0], "weight", amount=0.5)
    return module


class Quantized(nn.Module):
    """Weights of eight bits in a buffer, turned into floats in every forward. (B, 3, H, W) -> (B, 6)."""

    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.randint(-127, 128, (6, 3, 4, 4), dtype=torch.int8))
        self.scale = nn.Parameter(torch.full((6, 1, 1, 1), 0.01))

    def forward(self, x):
        return F.conv2d(x, self.get_buffer("weight").to(x.dtype) * self.scale, stride=4).mean((2, 3))


def int8_weights():
    return Quantized()


class Graph(nn.Module):
    """Messages along the edges of a graph kept as a sparse tensor of 40 values. (B, 3, H, W) -> (B, 16, 4)."""

    def __init__(self):
        super().__init__()
        self.patch, self.mix = nn.Conv2d(3, 8, 8, stride=8), nn.Linear(8, 4)
        index = torch.stack([torch.arange(40) % 16, torch.arange(40) * 7 % 16])
        self.edges = torch.sparse_coo_tensor(index, torch.ones(40), (16, 16))

    def forward(self, x):
        nodes = self.patch(x).flatten(2)  # (B, 8, 16)
        mixed = torch.stack([torch.sparse.mm(self.edges, each.t()) for each in nodes])
        return self.mix(mixed)


def sparse_graph():
    return Graph()


class ParameterList(nn.Module):
    """Matrices in a ParameterList and a ParameterDict, one of them never used. (B, 3, H, W) -> (B, 6)."""

    def __init__(self):
        super().__init__()
        self.matrices = nn.ParameterList([nn.Parameter(torch.randn(3, 8) * 0.3), nn.Parameter(torch.randn(8, 6) * 0.3)])
        self.others = nn.ParameterDict({"bias": nn.Parameter(torch.zeros(6)), "unused": nn.Parameter(torch.zeros(9))})

    def forward(self, x):
        x = x.mean((2, 3))
        for matrix in self.matrices:
            x = x @ matrix
        return x + self.others["bias"]


def parameter_list():
    return ParameterList()
