"""Selective scan in four directions, SS2D of VMamba (Liu et al., NeurIPS 2024, arXiv 2401.10166)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixprof.models import scan
from mixprof.models.formulations import CPP
from mixprof.models.kernels.cpu import build
from mixprof.models.kernels.cpu import directional_scan as cpp
from mixprof.models.layers import Formulated, channels_first, channels_last, require_map

DIRECTIONS = 4  # along the rows, along the columns, and both from the end
RANK = 16  # one in so many channels carries the step sizes


class SelectiveScan(Formulated):
    """Mamba's scan over the map's rows and columns, both ways. (B, H, W, C) -> (B, H, W, C). It has no window.

    Linear, 3x3 depth-wise, SiLU, the scans' sum, LayerNorm, Linear: VMamba's final block, with as many channels inside
    as outside, one state per channel and no gate. Step sizes are softplus(Linear of C/16 values), per direction.
    """

    def __init__(
        self, dim: int, resolution: tuple[int, int], window: int, heads: int, *, stage: int = 0, shifted: bool = False
    ):
        super().__init__()
        self.dim, self.resolution, rank = dim, resolution, dim // RANK
        self.in_proj = nn.Linear(dim, dim, bias=False)
        self.conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.steps = nn.Linear(dim, DIRECTIONS * rank, bias=False)
        self.states = nn.Linear(dim, DIRECTIONS * 2, bias=False)  # entries of all directions, then readouts
        self.step_weight = nn.Parameter(torch.randn(DIRECTIONS, rank, dim) * rank**-0.5)
        self.step_bias = nn.Parameter(torch.full((DIRECTIONS, 1, dim), -4.6))  # softplus of it: 0.01
        self.rate = nn.Parameter(torch.zeros(DIRECTIONS, dim))  # logarithms
        self.skip = nn.Parameter(torch.ones(DIRECTIONS, dim))
        self.norm = nn.LayerNorm(dim)
        self.out_proj = nn.Linear(dim, dim, bias=False)

    @property
    def formulation(self) -> str:
        """How the recurrence is composed."""
        return self.override or "chunked"

    def specialize(self, lowering: str) -> None:
        """Build the kernel, where it is one of ours."""
        super().specialize(lowering)
        if self.formulation == CPP:
            build.library(cpp.NAME)

    def forward(self, x: Tensor) -> Tensor:
        require_map(x, self.resolution, self.dim)
        x = F.silu(channels_last(self.conv(channels_first(self.in_proj(x)))))
        if self.lowering is not None and self.formulation == CPP:
            operands = (self.step_weight, self.step_bias[:, 0], self.rate, self.skip)
            y = torch.ops.mixprof.directional_scan(x, self.steps(x), self.states(x), *operands)
        else:
            y = self.scan_paths(x)
        return self.out_proj(self.norm(y))

    def scan_paths(self, x: Tensor) -> Tensor:
        """The scans' sum by way of a map for each direction: (B, H, W, C) -> (B, H, W, C)."""
        low = self.steps(x).unflatten(-1, (DIRECTIONS, -1)).permute(3, 0, 1, 2, 4).flatten(1, 3)  # (4, B*N, C/16)
        steps = F.softplus(torch.baddbmm(self.step_bias, low, self.step_weight)).view(DIRECTIONS, *x.shape)
        entry, readout = self.states(x).unsqueeze(-1).movedim(3, 0).chunk(2)  # (4, B, H, W, 1) each
        paths = [along_paths(part) for part in (x.expand(DIRECTIONS, *x.shape), steps, entry, readout)]
        y = self.scan(paths[0], paths[1], self.rate, paths[2], paths[3])
        return from_paths(y, self.resolution) + x * self.skip.sum(dim=0)

    def scan(self, *operands: Tensor) -> Tensor:
        """One operator where it is counted, several where it is lowered: exporters know none of ours."""
        if self.lowering is None and not torch.compiler.is_compiling():
            return scan.selective_scan(*operands)
        formulation = "chunked" if self.formulation == CPP else self.formulation  # what a published module exports
        return scan.scan(formulation, *operands)


def along_paths(maps: Tensor) -> Tensor:
    """A map for each direction in the order of its path: (4, B, H, W, C) -> (4, B, H*W, C)."""
    rows, columns, rows_back, columns_back = maps
    forwards = [rows.flatten(1, 2), columns.transpose(1, 2).flatten(1, 2)]
    backwards = [rows_back.flatten(1, 2), columns_back.transpose(1, 2).flatten(1, 2)]
    return torch.cat((torch.stack(forwards), torch.stack(backwards).flip(2)))


def from_paths(paths: Tensor, sides: tuple[int, int]) -> Tensor:
    """The way back, directions summed: (4, B, H*W, C) -> (B, H, W, C)."""
    rows, columns = paths[:2] + paths[2:].flip(2)
    return rows.unflatten(1, sides) + columns.unflatten(1, sides[::-1]).transpose(1, 2)
