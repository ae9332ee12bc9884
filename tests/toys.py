"""Factories that tests hand to real worker processes, as a user would."""

import os
import signal
import time

import torch
from torch import nn


class Toy(nn.Module):
    """One linear layer. (B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, channels, before=lambda x: x):
        super().__init__()
        self.linear = nn.Linear(channels, channels)
        self.before = before

    def forward(self, x):
        return self.linear(self.before(x))


def good(channels):
    return Toy(channels)


def network(resolution, window):
    return nn.Sequential(nn.Conv2d(3, 4, window), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def raises(channels):
    raise RuntimeError("no such\nweights")


def refuses(channels):
    raise ValueError(f"got channels={channels}, expected 7")


def forward_raises(channels):
    def fail(x):
        raise IndexError("beyond the edge")

    return Toy(channels, fail)


def not_a_number(channels):
    return Toy(channels, lambda x: x * float("nan"))


def segmentation_fault(channels):
    return Toy(channels, lambda x: os.kill(os.getpid(), signal.SIGSEGV))


def hangs(channels):
    return Toy(channels, lambda x: time.sleep(1000))


def spins(channels):
    def spin(x):
        while True:
            pass

    return Toy(channels, spin)


class BranchesOnData(Toy):
    """An exporter cannot know which way it goes."""

    def forward(self, x):
        return self.linear(x) if x.sum().item() > 0 else self.linear(-x)


def cannot_be_exported(channels):
    return BranchesOnData(channels)


class Counted(Toy):
    """Writes a line to $MIXPROF_LAUNCHES when a process runs the whole batch in float32 a third time: once a launch.

    A reference does so once, for what plain PyTorch loses, and a look at what a factory makes once.
    """

    def __init__(self, channels, batch):
        super().__init__(channels)
        self.batch, self.forwards = batch, 0

    def forward(self, x):
        real = type(x) is torch.Tensor and x.device.type == "cpu" and x.dtype == torch.float32
        if real and x.shape[0] == self.batch:
            self.forwards += 1
            if self.forwards == 3:
                with open(os.environ["MIXPROF_LAUNCHES"], "a") as file:
                    file.write(f"{self.batch}\n")
        return self.linear(x)


def counted(channels, batch):
    return Counted(channels, batch)


def too_large(channels):
    return Toy(channels, lambda x: torch.empty(2**50))


def too_large_for_a_gpu(channels):
    return Toy(channels, lambda x: x + torch.empty(2**44, device=x.device)[:1].to(x.dtype) if x.is_cuda else x)


class Different(Toy):
    """Another function in the process that is timed than in the one that made the reference."""

    def forward(self, x):
        return self.linear(x) * (1 + os.getpid() % 97)


def different(channels):
    return Different(channels)


def closes_every_descriptor(channels):
    def close(x):
        os.closerange(0, 4096)
        return x

    return Toy(channels, close)


def slower_and_slower(channels):
    state = {"sleep": 0.02}

    def wait(x):
        state["sleep"] *= 1.05
        time.sleep(state["sleep"])
        return x

    return Toy(channels, wait)


def fills_memory(channels):
    # 64 MiB at a time, touched, so that it is the kernel that ends it.
    hoard: list[bytes] = []

    def fill(x):
        while True:
            hoard.append(b"x" * (64 << 20))

    return Toy(channels, fill)


def leaves_children(channels):
    def start(x):
        if os.fork() == 0:
            time.sleep(1000)
        return x

    return Toy(channels, start)


def slow(channels):
    def wait(x):
        time.sleep(0.05)
        return x

    return Toy(channels, wait)


def sleeps_with_area(channels, resolution):
    """As slow as `sleeps_alike` at 32 positions a side."""

    def wait(x):
        time.sleep(8e-6 * resolution**2)
        return x

    return Toy(channels, wait)


def sleeps_alike(channels):
    def wait(x):
        time.sleep(8e-6 * 32**2)
        return x

    return Toy(channels, wait)


def overflows(channels):
    return Toy(channels, lambda x: x * float("inf"))


def not_compiled(channels):
    return Uncompiled(channels)


class Uncompiled(Toy):
    """A forward that torch.compile is told to leave alone."""

    @torch.compiler.disable
    def forward(self, x):
        return self.linear(x)


class Attends(Toy):
    """The same map, through scaled_dot_product_attention."""

    def forward(self, x):
        y = self.linear(x).flatten(1, 2)[:, None]
        return nn.functional.scaled_dot_product_attention(y, y, y)[:, 0].view(x.shape)


def attends(channels):
    return Attends(channels)


class Branching(nn.Module):
    """Two inputs, a dictionary of outputs, dropout, a frozen layer: what people's modules are like in training."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 8).requires_grad_(False), nn.Linear(8, 3)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x, y):
        hidden = self.dropout(self.first(x)).relu()
        return {"scores": self.second(hidden) + y, "best": hidden.argmax(-1)}

    def example_inputs(self, batch):
        return torch.randn(batch, 8), torch.randn(batch, 3)


def branching():
    return Branching()


def loss_of_nan():
    return nn.Sequential(nn.Conv2d(3, 4, 1), NotANumber())


class NotANumber(nn.Module):
    def forward(self, x):
        return x * float("nan")


class WrongLater(nn.Module):
    """Scales the gradient by its process: that of the reference has another one."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        y = self.conv(x)
        share = 1 + os.getpid() % 97
        return y * share - (y * (share - 1)).detach()


def wrong_later():
    return WrongLater()
