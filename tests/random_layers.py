"""Layers of one's own that random modules are made of: products by einsum, matmul and loops, each with its MACs."""

import torch
import torch.nn.functional as F
from torch import nn


class Residual(nn.Module):
    """x + block(x), for a block that keeps the shape."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x):
        return x + self.block(x)


class Branches(nn.Module):
    """Several blocks of one input, one beside the other along an axis."""

    def __init__(self, blocks, axis):
        super().__init__()
        self.blocks, self.axis = nn.ModuleList(blocks), axis

    def forward(self, x):
        return torch.cat([block(x) for block in self.blocks], self.axis)


class First(nn.Module):
    """The first of what a layer returns: the output of a recurrent one, without its state."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0]


class SelfAttention(nn.Module):
    """nn.MultiheadAttention of tokens to themselves; its weights, where it returns them, are added up and scaled in."""

    def __init__(self, width, heads, weights):
        super().__init__()
        self.attention, self.weights = nn.MultiheadAttention(width, heads, batch_first=True), weights

    def forward(self, x):
        out, weights = self.attention(x, x, x, need_weights=self.weights)
        return out if weights is None else out + weights.mean(-1, keepdim=True)


class Fused(nn.Module):
    """Attention through scaled_dot_product_attention, causal or not. (B, N, C) -> (B, N, C)."""

    def __init__(self, width, heads, causal):
        super().__init__()
        self.qkv, self.proj, self.heads, self.causal = (
            nn.Linear(width, 3 * width),
            nn.Linear(width, width),
            heads,
            causal,
        )

    def forward(self, x):
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(
            F.scaled_dot_product_attention(q, k, v, is_causal=self.causal).transpose(1, 2).reshape(b, n, c)
        )

    def macs(self, given, made):
        b, n, c = given[0].shape
        return 2 * b * n * n * c


class Einsum(nn.Module):
    """Attention written with einsum. (B, N, C) -> (B, N, C)."""

    def __init__(self, width, heads):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.heads = heads

    def forward(self, x):
        b, n, c = x.shape
        q, k, v = (layer(x).view(b, n, self.heads, -1) for layer in (self.q, self.k, self.v))
        scores = torch.einsum("bnhd,bmhd->bhnm", q, k) * (c // self.heads) ** -0.5
        return torch.einsum("bhnm,bmhd->bnhd", scores.softmax(-1), v).reshape(b, n, c)

    def macs(self, given, made):
        b, n, c = given[0].shape
        return 2 * b * n * n * c


class TokenMix(nn.Module):
    """A matrix over the tokens, by einsum or by a transposed matmul. (B, N, C) -> (B, M, C)."""

    def __init__(self, length, to, by_einsum):
        super().__init__()
        self.weight, self.by_einsum = nn.Parameter(torch.randn(length, to) * length**-0.5), by_einsum

    def forward(self, x):
        if self.by_einsum:
            return torch.einsum("bnc,nm->bmc", x, self.weight)
        return (x.transpose(1, 2) @ self.weight).transpose(1, 2)

    def macs(self, given, made):
        return given[0].numel() * self.weight.shape[1]


class Sequence(nn.Module):
    """A convolution along the tokens. (B, N, C) -> (B, N, C')."""

    def __init__(self, conv):
        super().__init__()
        self.conv = conv

    def forward(self, x):
        return self.conv(x.transpose(1, 2)).transpose(1, 2)


class Cell(nn.Module):
    """A recurrent cell in a loop of the user's. (B, N, C) -> (B, N, hidden)."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def forward(self, x):
        state, states = x.new_zeros(len(x), self.cell.hidden_size), []
        for token in x.unbind(1):
            state = self.cell(token, state)
            states.append(state)
        return torch.stack(states, 1)


class Gate(nn.Module):
    """Squeeze and excitation: channels weighed by what their means say. (B, C, H, W) -> the same."""

    def __init__(self, channels):
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)

    def forward(self, x):
        return x * self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))).sigmoid()


class ChannelsLast(nn.Module):
    """A layer over the channels of (B, C, H, W), applied to (B, H, W, C)."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Windows(nn.Module):
    """Windows of 2 x 2 as tokens, a Linear over each window, and back: views and permutes. (B, C, H, W) -> the same."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(4, 4)

    def forward(self, x):
        b, c, h, w = x.shape
        x = x.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 1, 2, 4, 3, 5).reshape(b, c, h // 2, w // 2, 4)
        return self.mix(x).view(b, c, h // 2, w // 2, 2, 2).permute(0, 1, 2, 4, 3, 5).reshape(b, c, h, w)


class ToTokens(nn.Module):
    """(B, C, H, W) -> (B, H·W, C)."""

    def forward(self, x):
        return x.flatten(2).transpose(1, 2)


class ToImage(nn.Module):
    """(B, H·W, C) -> (B, C, H, W)."""

    def __init__(self, height, width):
        super().__init__()
        self.height, self.width = height, width

    def forward(self, x):
        return x.transpose(1, 2).unflatten(2, (self.height, self.width))
