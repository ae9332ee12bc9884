"""DWNet's block with a kernel per position and channel group, predicted there (arXiv 2106.04263)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixprof.models.aggregation import ROWS, choose, flat_rows, shift_flat_rows
from mixprof.models.aggregation_backward import FORMULATIONS
from mixprof.models.folding import affine, as_linear, fold_after, permute_inputs, permute_outputs
from mixprof.models.formulations import CPP, TRITON
from mixprof.models.kernels.cpu import build, inhomogeneous, linear
from mixprof.models.kernels.triton import inhomogeneous as triton
from mixprof.models.layers import Formulated, channels_first, channels_last, pointwise
from mixprof.models.mixers.depthwise_conv import DepthwiseConv

GROUPS = inhomogeneous.GROUPS  # kernels per position, in every stage
FLAT_POSITIONS = 512  # from about this many on, dense positions are faster to add over than the groups of each


class InhomogeneousConv(Formulated):
    """A KxK convolution with kernels of its own at every position. (B, C, H, W) -> (B, C, H, W); zero-padded.

    Generator: 1x1 to C/4, BN, ReLU, 1x1 to G*K*K (group g, tap t at g*K*K + t); channel c takes group c // (C/G).
    """

    scale: Tensor | None  # (C,), after fold(): of the batch norm behind the convolution
    shift: Tensor | None
    taps: Tensor | None  # of CPP and TRITON: the weights (K*K, C/4, G) that predict kernels, and their biases (K*K, G)
    biases: Tensor | None
    reduce: Tensor | None  # of CPP: the weights that predict hidden values, in panels, and their biases
    reduce_biases: Tensor | None

    def __init__(self, dim: int, window: int, positions: int):
        super().__init__()
        if dim % GROUPS:
            raise ValueError(f"got dim={dim}, expected a multiple of the {GROUPS} kernel groups")
        self.window, self.positions = window, positions
        self.conv1 = nn.Sequential(nn.Conv2d(dim, dim // 4, 1), nn.BatchNorm2d(dim // 4))
        self.conv2 = nn.Sequential(nn.Conv2d(dim // 4, GROUPS * window**2, 1))
        for name in ("scale", "shift", "taps", "biases", "reduce", "reduce_biases"):
            self.register_buffer(name, None, persistent=False)

    @property
    def formulation(self) -> str:
        """What it currently runs."""
        best = choose(self.override, self.lowering, training=self.training)
        large = self.override is None and self.lowering == "eager" and self.positions >= FLAT_POSITIONS
        return "shift_flat" if large else best

    def fold(self, norm: nn.Module, lowering: str) -> Tensor | None:
        """Fold the generator's batch norm and the one behind the convolution; arrange for the formulation.

        The sign of a scale keeps it out of the ReLU before, and groups share their kernels, so it goes on the map.
        Returns the order (C,) in which the convolution then takes and gives its channels, None for the published.
        """
        self.lowering = lowering
        reduce, expand = as_linear(self.conv1[0]), as_linear(self.conv2[0])
        fold_after(reduce, self.conv1[1])
        scale, shift = (part.to(expand.weight.dtype) for part in affine(norm))
        order = self.arrange(reduce, expand)
        self.scale, self.shift = (scale, shift) if order is None else (scale[order], shift[order])
        self.conv1, self.conv2 = nn.Sequential(reduce, nn.Identity()), nn.Sequential(expand)
        if self.formulation in (CPP, TRITON):
            self.pack(reduce, expand)
        return order

    def pack(self, reduce: nn.Linear, expand: nn.Linear) -> None:
        """Lay the predictor's weights out for a kernel of our own, and build the one that is C++."""
        if self.formulation == CPP:
            build.library("inhomogeneous")
            self.reduce, self.reduce_biases = linear.panels_of(reduce)
            self.conv1 = nn.Sequential()
        self.taps = expand.weight.detach().unflatten(0, (-1, GROUPS)).transpose(1, 2).contiguous()
        self.biases = expand.bias.detach().unflatten(0, (-1, GROUPS))
        self.conv2 = nn.Sequential()

    def arrange(self, reduce: nn.Linear, expand: nn.Linear) -> Tensor | None:
        """Give out kernels as (tap, group) where they are predicted row by row; see fold() for what is returned.

        Where the groups are innermost, channels come as (C/G, group), which makes that axis dense in both.
        """
        if self.formulation not in (*ROWS, CPP, TRITON, "shift_flat"):
            return None
        permute_outputs(expand, groups_last(expand.out_features, expand.weight.device))
        if self.formulation == "shift_flat":
            return None
        order = groups_last(reduce.in_features, reduce.weight.device)
        permute_inputs(reduce, order)
        return order

    def forward(self, x: Tensor) -> Tensor:
        x, operands = channels_last(x), (self.taps, self.biases, self.scale, self.shift)
        if self.reduce is not None:
            mixed = torch.ops.mixprof.inhomogeneous(x, self.reduce, self.reduce_biases, *operands, self.window)
            return channels_first(mixed)
        hidden = pointwise(self.conv1[0], x, self.conv1[1])
        if self.taps is not None:
            return channels_first(triton.inhomogeneous(x, hidden, *operands, True))
        hidden = F.relu(hidden)
        if self.scale is not None:
            x = x * self.scale
        if self.lowering is not None and self.formulation == "shift_flat":
            return channels_first(self.accumulate_flat(x, hidden))
        if self.lowering is not None and self.formulation in ROWS:
            return channels_first(self.accumulate(x, hidden))
        kernels = pointwise(self.conv2[0], hidden).unflatten(-1, (GROUPS, -1)).transpose(3, 4)  # (B, H, W, K*K, G)
        mixed = FORMULATIONS[self.formulation](x, kernels, self.window)
        return channels_first(mixed if self.shift is None else mixed + self.shift)

    def accumulate(self, x: Tensor, hidden: Tensor) -> Tensor:
        """Predict the kernels of one row of taps at a time: all of them never exist together."""
        assert self.shift is not None
        expand = as_linear(self.conv2[0])
        weights, biases = expand.weight.chunk(self.window), expand.bias.chunk(self.window)
        total = self.shift.expand(x.shape).clone(memory_format=torch.contiguous_format).unflatten(3, (-1, GROUPS))

        def kernels_of_row(row: int) -> Tensor:
            return F.linear(hidden, weights[row], biases[row]).unflatten(3, (self.window, 1, GROUPS))

        return ROWS[self.formulation](x, kernels_of_row, total, self.window)

    def accumulate_flat(self, x: Tensor, hidden: Tensor) -> Tensor:
        """The same with the positions innermost. A channel of ones carries the bias through the product."""
        assert self.shift is not None
        expand = as_linear(self.conv2[0])
        weights = torch.cat((expand.weight, expand.bias[:, None]), dim=1).chunk(self.window)
        hidden = flat_rows(F.pad(channels_first(hidden), (0, 0, 0, 0, 0, 1), value=1.0), self.window)  # (B, C/4 + 1, M)
        total = self.shift.view(1, GROUPS, -1, 1).expand(len(x), -1, -1, hidden.shape[-1])
        total = total.clone(memory_format=torch.contiguous_format)
        row_of_kernels = hidden.new_empty(len(x), len(weights[0]), hidden.shape[-1])  # one for all rows

        def kernels_of_row(row: int) -> Tensor:
            torch.bmm(weights[row].expand(len(x), -1, -1), hidden, out=row_of_kernels)
            return row_of_kernels.unflatten(1, (self.window, GROUPS, 1))

        return shift_flat_rows(x, kernels_of_row, total, self.window)


def groups_last(channels: int, device: torch.device) -> Tensor:
    """The order (channels,) that turns (group, rest) into (rest, group)."""
    return torch.arange(channels, device=device).view(GROUPS, -1).t().flatten()


class InhomogeneousDepthwiseConv(DepthwiseConv):
    """The depth-wise block with kernels predicted per position. (B, H, W, C) -> (B, H, W, C)."""

    conv: InhomogeneousConv

    def spatial(self) -> nn.Module:
        """The layer that mixes positions."""
        assert self.resolution is not None
        return InhomogeneousConv(self.dim, self.window, self.resolution[0] * self.resolution[1])

    @property
    def formulation(self) -> str:
        """What the spatial layer currently runs."""
        return self.conv.formulation

    def fold_spatial(self, lowering: str) -> None:
        """Fold `bn` into the convolution and, where that reorders its channels, meet it with the 1x1s around."""
        order = self.conv.fold(self.bn, lowering)
        if order is not None:
            permute_outputs(as_linear(self.conv0), order)
            permute_inputs(as_linear(self.conv2), order)
