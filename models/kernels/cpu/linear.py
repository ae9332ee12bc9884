"""mixprof::linear: the product of a Linear, with its weights in panels, on a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixprof.models.kernels.cpu.build import LIBRARY, call, library
from mixprof.models.layers import PointwiseLinear

PANEL = 32  # outputs side by side, as the C++ has them
LIBRARY.define("linear(Tensor x, Tensor panels, Tensor bias, int outputs, bool rectify=False) -> Tensor")


def linear(x: Tensor, panels: Tensor, bias: Tensor, outputs: int, rectify: bool = False) -> Tensor:
    """x (..., J) times panels (M / 32 rounded up, J, 32) plus bias, padded likewise, a ReLU behind or not: (..., M)."""
    out = x.new_empty((*x.shape[:-1], outputs))
    call("linear", (out.numel() // outputs, x.shape[-1], outputs, rectify), (x, panels, bias), out)
    return out


LIBRARY.impl("linear", linear, "CPU")


@torch.library.register_fake("mixprof::linear", lib=LIBRARY)
def _shape(x: Tensor, panels: Tensor, bias: Tensor, outputs: int, rectify: bool = False) -> Tensor:
    return x.new_empty((*x.shape[:-1], outputs))


def panels_of(linear: nn.Linear) -> tuple[Tensor, Tensor]:
    """A Linear's weights as (M / 32 rounded up, J, 32) and its bias, padded likewise."""
    lacking = -linear.out_features % PANEL
    bias = linear.weight.new_zeros(linear.out_features) if linear.bias is None else linear.bias.detach()
    panels = F.pad(linear.weight.detach(), (0, 0, 0, lacking)).unflatten(0, (-1, PANEL)).transpose(1, 2)
    return panels.contiguous(), F.pad(bias, (0, lacking))


class CppLinear(PointwiseLinear):
    """A Linear that runs in our own kernel."""

    panels: Tensor
    padded: Tensor

    @classmethod
    def of(cls, linear: nn.Linear) -> "CppLinear":
        """Make one of a Linear, sharing its parameters, with its weights laid out anew; the kernel is built here."""
        library("linear")
        made = super().of(linear)
        assert isinstance(made, cls)
        for name, tensor in zip(("panels", "padded"), panels_of(linear), strict=True):
            made.register_buffer(name, tensor, persistent=False)
        return made

    def forward(self, x: Tensor, rectify: bool = False) -> Tensor:
        return torch.ops.mixprof.linear(x, self.panels, self.padded, self.out_features, rectify)
