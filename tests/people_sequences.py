"""Attention and recurrence as people write them, for real worker processes."""

import torch
import torch.nn.functional as F
from torch import nn


class PlainViT(nn.Module):
    """Patches, a pile of PyTorch's own encoder layers, a mean and a head. (B, 3, H, W) -> (B, classes)."""

    def __init__(self, depth, width, heads, hidden, patch, classes, norm_first=True):
        super().__init__()
        self.patch = nn.Conv2d(3, width, patch, stride=patch)
        self.layers = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(width, heads, hidden, norm_first=norm_first, batch_first=True)
                for _ in range(depth)
            )
        )
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        return self.head(self.layers(self.patch(x).flatten(2).transpose(1, 2)).mean(1))


def encoder():
    """Makes the plain encoder of twelve layers, 4,573,646,592 MACs at 224."""
    return PlainViT(12, 384, 6, 1536, 16, 10)


def small_encoder():
    return PlainViT(2, 32, 4, 64, 8, 10)


def encoder_with_norms_last():
    return PlainViT(2, 32, 4, 64, 8, 10, norm_first=False)


class Padded(nn.Module):
    """nn.TransformerEncoder with a mask of padding, which it packs into nested tensors. ids (B, 20) -> (B, 20, 16)."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(50, 16, padding_idx=0)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)

    def forward(self, ids):
        return self.encoder(self.table(ids), src_key_padding_mask=ids == 0)

    def example_inputs(self, batch, resolution):
        ids = torch.randint(1, 50, (batch, 20), generator=torch.Generator().manual_seed(0))
        ids[-1, 15:] = 0
        return ids


def padded():
    return Padded()


class Decoder(nn.Module):
    """A causal language model whose head is its table. ids (B, L) of 100 -> logits (B, L, 100)."""

    def __init__(self):
        super().__init__()
        self.table, self.positions = nn.Embedding(100, 32), nn.Embedding(64, 32)
        self.norm, self.qkv, self.proj = nn.LayerNorm(32), nn.Linear(32, 96), nn.Linear(32, 32)
        self.lm_head = nn.Linear(32, 100, bias=False)
        self.lm_head.weight = self.table.weight

    def forward(self, ids):
        b, length = ids.shape
        x = self.table(ids) + self.positions(torch.arange(length))
        q, k, v = self.qkv(self.norm(x)).view(b, length, 3, 4, 8).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.lm_head(x + self.proj(y.transpose(1, 2).reshape(b, length, 32)))

    def example_inputs(self, batch, resolution):
        return torch.randint(100, (batch, 24))


def decoder():
    return Decoder()


class Cross(nn.Module):
    """Queries that attend to what is known of an image. (B, 3, H, W) -> (B, 5, 16)."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 24, 8, stride=8)
        self.queries = nn.Parameter(torch.zeros(5, 16).normal_())
        self.attention = nn.MultiheadAttention(16, 2, kdim=24, vdim=24, batch_first=True)

    def forward(self, x):
        memory = self.patch(x).flatten(2).transpose(1, 2)
        out, _ = self.attention(self.queries.expand(len(x), -1, -1), memory, memory, need_weights=False)
        return out


def cross_attention():
    return Cross()


class EncoderDecoder(nn.Module):
    """nn.Transformer. source (B, 12, 16), target (B, 9, 16) -> (B, 9, 16)."""

    def __init__(self):
        super().__init__()
        self.transformer = nn.Transformer(16, 2, 1, 1, 32, batch_first=True)

    def forward(self, source, target):
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        return self.transformer(source, target, tgt_mask=mask, tgt_is_causal=True)

    def example_inputs(self, batch, resolution):
        return torch.randn(batch, 12, 16), torch.randn(batch, 9, 16)


def encoder_decoder():
    return EncoderDecoder()


class HardAttention(nn.Module):
    """Attention whose scores are large, so that a small change of one turns it over. (B, 3, H, W) -> (B, 16, 16)."""

    def __init__(self):
        super().__init__()
        self.patch, self.qkv = nn.Conv2d(3, 16, 8, stride=8), nn.Linear(16, 48)

    def forward(self, x):
        q, k, v = self.qkv(self.patch(x).flatten(2).transpose(1, 2)).chunk(3, -1)
        return (q @ k.transpose(1, 2) * 20).softmax(-1) @ v


def hard_attention():
    return HardAttention()


class Rows(nn.Module):
    """An image read as rows of patches by a recurrent layer. (B, 3, H, W) -> (B, 7), what it ended with."""

    def __init__(self, recurrent, width, head):
        super().__init__()
        self.patch, self.recurrent, self.head = nn.Conv2d(3, 8, 8, stride=8), recurrent, nn.Linear(head, 7)

    def forward(self, x):
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        out, state = self.recurrent(tokens)
        return self.head(out[:, -1]), state


def lstm():
    return Rows(nn.LSTM(8, 12, num_layers=2, bidirectional=True, batch_first=True), 12, 24)


def gru():
    return Rows(nn.GRU(8, 12, batch_first=True), 12, 12)


def projected_lstm():
    return Rows(nn.LSTM(8, 12, proj_size=5, batch_first=True), 12, 5)


class Cells(nn.Module):
    """A loop of a recurrent cell. (B, 3, H, W) -> (B, 6)."""

    def __init__(self):
        super().__init__()
        self.patch, self.cell = nn.Conv2d(3, 8, 8, stride=8), nn.GRUCell(8, 6)

    def forward(self, x):
        h = torch.zeros(x.shape[0], 6, dtype=x.dtype)
        for token in self.patch(x).flatten(2).unbind(2):
            h = self.cell(token, h)
        return h


def cells():
    return Cells()


class Scan(nn.Module):
    """A state space scanned in a loop. (B, 3, H, W) -> (B, N, 8)."""

    def __init__(self):
        super().__init__()
        self.patch, self.into, self.out = nn.Conv2d(3, 8, 8, stride=8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.decay = nn.Parameter(torch.linspace(0.1, 0.9, 8))

    def forward(self, x):
        u = self.into(self.patch(x).flatten(2).transpose(1, 2))
        state, states = torch.zeros_like(u[:, 0]), []
        for step in range(u.shape[1]):
            state = self.decay * state + u[:, step]
            states.append(state)
        return self.out(torch.stack(states, 1))


def scan():
    return Scan()


class Experts(nn.Module):
    """Every token goes to one of four experts, by its own values. (B, 3, H, W) -> (B, N, 8)."""

    def __init__(self):
        super().__init__()
        self.patch, self.router = nn.Conv2d(3, 8, 8, stride=8), nn.Linear(8, 4)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, x):
        tokens = self.patch(x).flatten(2).transpose(1, 2).reshape(-1, 8)
        choice = self.router(tokens).argmax(-1)
        out = torch.zeros_like(tokens)
        for index, expert in enumerate(self.experts):
            out[choice == index] = expert(tokens[choice == index])
        return out.view(len(x), -1, 8)


def experts():
    return Experts()


class Bags(nn.Module):
    """Sums of embeddings of bags of indices. bags (B, 6) -> (B, 3)."""

    def __init__(self):
        super().__init__()
        self.bags, self.head = nn.EmbeddingBag(30, 8, mode="sum"), nn.Linear(8, 3)

    def forward(self, bags):
        return self.head(self.bags(bags))

    def example_inputs(self, batch, resolution):
        return torch.randint(30, (batch, 6))


def bags():
    return Bags()
