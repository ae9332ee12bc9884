"""The mixers of 2021 to 2025 as one would first write them: see plain_formulations.py, which has them in its table.

Maps go to NCHW and back by copies, as the papers' code does. Kernels of positions by unfold and einsum, moved samples
by grid_sample, and the scan by the decay matrices of chunks that the Mamba-2 paper lists (arXiv 2405.21060, listing 1),
for a loop over all positions takes minutes to compile and no graph holds it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Sides = tuple[int, int]
CHUNK = 16  # positions of the scan: about the cube root of a map's, where the two kinds of matrices are equally large


def nchw(x: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, C, H, W), dense."""
    return x.permute(0, 3, 1, 2).contiguous()


def nhwc(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H, W, C), dense."""
    return x.permute(0, 2, 3, 1).contiguous()


class PlainConvNeXt(nn.Module):
    def __init__(self, dim: int, resolution: Sides, window: int, heads: int, stage: int, shifted: bool):
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, window, padding=window // 2, groups=dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(nhwc(self.dwconv(nchw(x))))


class PlainSplitDepthwise(nn.Module):
    def __init__(self, dim: int, resolution: Sides, window: int, heads: int, stage: int, shifted: bool):
        super().__init__()
        width = dim // 8
        self.sizes = [dim - 3 * width, width, width, width]
        self.square = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.row = nn.Conv2d(width, width, (1, window), padding=(0, window // 2), groups=width)
        self.column = nn.Conv2d(width, width, (window, 1), padding=(window // 2, 0), groups=width)

    def forward(self, x: Tensor) -> Tensor:
        rest, square, row, column = torch.split(nchw(x), self.sizes, dim=1)
        return nhwc(torch.cat((rest, self.square(square), self.row(row), self.column(column)), dim=1))


class PlainFocalModulation(nn.Module):
    """Contexts, gates and their sum in NCHW; the modulator is a 1x1 convolution there."""

    def __init__(self, dim: int, resolution: Sides, window: int, heads: int, stage: int, shifted: bool):
        super().__init__()
        self.query, self.context, self.gates = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, 4)
        self.levels = nn.ModuleList(nn.Conv2d(dim, dim, k, padding=k // 2, groups=dim, bias=False) for k in (3, 5, 7))
        self.modulator, self.proj = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        query, context, gates = nchw(self.query(x)), nchw(self.context(x)), nchw(self.gates(x))
        total = torch.zeros_like(context)
        for level, conv in enumerate(self.levels):
            context = F.gelu(conv(context))
            total = total + context * gates[:, level : level + 1]
        total = total + F.gelu(context.mean((2, 3), keepdim=True)) * gates[:, 3:]
        modulator = F.conv2d(total, self.modulator.weight[:, :, None, None], self.modulator.bias)
        return self.proj(nhwc(query * modulator))


class PlainLinearAttention(nn.Module):
    """Keys times values first, and the sum of keys by itself for what the scores add up to."""

    def __init__(self, dim: int, resolution: Sides, window: int, heads: int, stage: int, shifted: bool):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x.flatten(1, 2)).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, N, d)
        q, k = q.relu(), k.relu()
        mixed = q @ (k.transpose(-2, -1) @ v / k.shape[2])
        total = (q * k.mean(dim=2, keepdim=True)).sum(dim=-1, keepdim=True)
        return self.proj((mixed / (total + 1e-6)).transpose(1, 2).reshape(x.shape))


class PlainDynamicLargeKernel(nn.Module):
    def __init__(self, dim: int, resolution: Sides, window: int, heads: int, stage: int, shifted: bool):
        super().__init__()
        self.window, self.heads = window, heads
        self.query, self.key = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.kernel = nn.Linear(49, window**2)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        image = nchw(x)
        regions = F.adaptive_avg_pool2d(image, 7).flatten(2).transpose(1, 2)  # (B, 49, C)
        q = self.query(x.flatten(1, 2)).unflatten(-1, (self.heads, -1))
        k = self.key(regions).unflatten(-1, (self.heads, -1))
        affinity = torch.einsum("bnhd,brhd->bhnr", q, k) * q.shape[-1] ** -0.5
        kernels = self.kernel(affinity).softmax(dim=-1)  # (B, heads, N, taps)
        columns = F.unfold(image, self.window, padding=self.window // 2)
        columns = columns.view(len(x), self.heads, -1, self.window**2, columns.shape[-1])
        return self.proj(torch.einsum("bhnt,bhdtn->bnhd", kernels, columns).reshape(x.shape))


class PlainDeformableAggregation(nn.Module):
    def __init__(self, dim: int, resolution: Sides, window: int, heads: int, stage: int, shifted: bool):
        super().__init__()
        self.window, self.heads = window, heads
        self.value, self.offset_mask = nn.Linear(dim, dim), nn.Linear(dim, heads * window**2 * 3)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        (batch, height, width, dim), taps, margin = x.shape, self.window**2, self.window // 2
        asked = self.offset_mask(x).view(batch, height * width, self.heads, 3 * taps).transpose(1, 2)
        offset = asked[..., : 2 * taps].reshape(batch * self.heads, height * width, taps, 2)  # x, y
        mask = asked[..., 2 * taps :].reshape(batch * self.heads, 1, height * width, taps)
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        down, right = torch.meshgrid(*(torch.arange(self.window) - margin,) * 2, indexing="ij")
        at = torch.stack((columns, rows), dim=-1).view(-1, 1, 2) + torch.stack((right, down), dim=-1).view(1, -1, 2)
        size = torch.tensor([width, height], dtype=x.dtype)
        grid = (2 * (offset + at.to(x)) + 1) / size - 1
        maps = nchw(self.value(x)).view(batch * self.heads, -1, height, width)
        sampled = F.grid_sample(maps, grid, align_corners=False)  # (B * heads, d, N, taps)
        mixed = (sampled * mask).sum(-1).view(batch, dim, height, width)
        return self.proj(nhwc(mixed))


def decays(logs: Tensor) -> Tensor:
    """exp of every sum of logs from s + 1 to t, 0 where s > t. (..., L, C) -> (..., L, L, C)."""
    total = logs.cumsum(dim=-2)
    gaps = total.unsqueeze(-2) - total.unsqueeze(-3)
    late = torch.ones(logs.shape[-2], logs.shape[-2], dtype=torch.bool, device=logs.device).tril().unsqueeze(-1)
    return gaps.masked_fill(~late, float("-inf")).exp()


def scan(logs: Tensor, drive: Tensor) -> Tensor:
    """h_t = exp(logs_t) h_{t-1} + drive_t. (..., L, C)."""
    length = logs.shape[-2]
    logs, drive = (F.pad(x, (0, 0, 0, -length % CHUNK)).unflatten(-2, (-1, CHUNK)) for x in (logs, drive))
    within = torch.einsum("...tsc,...sc->...tc", decays(logs), drive)  # (..., chunks, CHUNK, C)
    ends = torch.einsum("...zwc,...wc->...zc", decays(logs.sum(dim=-2)), within[..., -1, :])  # (..., chunks, C)
    before = F.pad(ends[..., :-1, :], (0, 0, 1, 0)).unsqueeze(-2)
    return (within + logs.cumsum(dim=-2).exp() * before).flatten(-3, -2)[..., :length, :]


class PlainSelectiveScan(nn.Module):
    """One direction after the other."""

    def __init__(self, dim: int, resolution: Sides, window: int, heads: int, stage: int, shifted: bool):
        super().__init__()
        self.in_proj, self.out_proj = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.steps, self.states = nn.Linear(dim, 4 * (dim // 16), bias=False), nn.Linear(dim, 8, bias=False)
        self.step_weight = nn.Parameter(torch.zeros(4, dim // 16, dim))
        self.step_bias = nn.Parameter(torch.zeros(4, 1, dim))
        self.rate, self.skip = nn.Parameter(torch.zeros(4, dim)), nn.Parameter(torch.ones(4, dim))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        u = nhwc(F.silu(self.conv(nchw(self.in_proj(x)))))
        low, states = self.steps(u).chunk(4, dim=-1), self.states(u)
        total = torch.zeros_like(u)
        for number in range(4):  # rows, columns, rows from the end, columns from the end
            delta = F.softplus(low[number] @ self.step_weight[number] + self.step_bias[number])
            drive = delta * states[..., number : number + 1] * u
            logs = -delta * self.rate[number].exp()
            h = self.along(logs, drive, by_column=number % 2 == 1, backwards=number >= 2)
            total = total + states[..., 4 + number : 5 + number] * h + u * self.skip[number]
        return self.out_proj(self.norm(total))

    @staticmethod
    def along(logs: Tensor, drive: Tensor, *, by_column: bool, backwards: bool) -> Tensor:
        """Scan maps (B, H, W, C) along one path."""
        if by_column:
            logs, drive = logs.transpose(1, 2), drive.transpose(1, 2)
        sides, paths = logs.shape[1:3], (logs.flatten(1, 2), drive.flatten(1, 2))
        h = scan(*(path.flip(1) for path in paths)).flip(1) if backwards else scan(*paths)
        h = h.unflatten(1, sides)
        return h.transpose(1, 2) if by_column else h


MIXERS = {
    "convnext": PlainConvNeXt,
    "split_depthwise_conv": PlainSplitDepthwise,
    "focal_modulation": PlainFocalModulation,
    "linear_attention": PlainLinearAttention,
    "dynamic_large_kernel": PlainDynamicLargeKernel,
    "selective_scan": PlainSelectiveScan,
    "deformable_aggregation": PlainDeformableAggregation,
}
