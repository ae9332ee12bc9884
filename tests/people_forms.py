"""What factories hand back that is no plain module, and names that people give for a factory."""

import torch
from torch import nn


class Small(nn.Module):
    """A convolution and a head. (B, 3, H, W) -> (B, 4), 221,184 + 32 MACs at 32."""

    def __init__(self, classes: int = 4):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, classes)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))


instance = Small()  # a module itself, where a factory is asked for


def plain():
    return Small()


def with_transform():
    """Makes a module and how its pictures are prepared, as hubs of checkpoints return them."""
    return Small(), lambda picture: picture / 255


def with_config():
    return Small(), {"architecture": "small", "input_size": (3, 32, 32)}


def in_a_list():
    return [Small()]


def nothing():
    Small()


def weights_alone():
    return Small().state_dict()


def scripted():
    return torch.jit.script(Small().eval())


def traced():
    return torch.jit.trace(Small().eval(), torch.randn(2, 3, 32, 32))


def frozen():
    return torch.jit.freeze(torch.jit.script(Small().eval()))


def exported():
    return torch.export.export(Small().eval(), (torch.randn(2, 3, 32, 32),))


def exported_module():
    return torch.export.export(Small().eval(), (torch.randn(2, 3, 32, 32),)).module()


def symbolically_traced():
    return torch.fx.symbolic_trace(Small().eval())


def compiled():
    return torch.compile(Small())


def compiled_forward():
    """Makes a module whose forward alone is compiled, in place."""
    module = Small()
    module.compile()
    return module


def data_parallel():
    return nn.DataParallel(Small())


def function():
    """Makes a function that is no module."""
    module = Small().eval()
    return lambda x: module(x)


def needs(classes):
    """Makes a network only where it is told how many classes it has."""
    return Small(classes)


def fails():
    raise FileNotFoundError(2, "No such file or directory", "weights/best.pth")


def loads():
    """Makes a network with weights from a file that is not there."""
    module = Small()
    module.load_state_dict(torch.load("no_such_checkpoint.pt", weights_only=True))
    return module


async def asynchronous():
    return Small()


class Hooked(Small):
    """A module that keeps its features by a hook of its own and returns them, too."""

    def __init__(self):
        super().__init__()
        self.kept = None
        self.conv.register_forward_hook(lambda module, given, made: setattr(self, "kept", made))

    def forward(self, x):
        return super().forward(x), self.kept


def hooked():
    return Hooked()
