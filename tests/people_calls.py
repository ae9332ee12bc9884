"""Functions without arguments for `call:people_calls:NAME`, with the MACs that each does."""

import torch
from torch import nn

torch.manual_seed(0)
LAYER = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True).eval()
LSTM, GRU = nn.LSTM(4, 5).eval(), nn.GRU(4, 5).eval()
ATTENTION = nn.MultiheadAttention(16, 2, batch_first=True).eval()
CONV = nn.Conv2d(3, 8, 3, padding=1)

MACS = {
    "encoder_layer": 340_480,
    "encoder_layer_without_gradients": 340_480,
    "encoder_layer_in_inference_mode": 340_480,
    "lstm": 1080,
    "lstm_without_gradients": 1080,
    "gru": 6 * 15 * (4 + 5),
    "attention": 2 * (4 * 10 * 256 + 2 * 100 * 16),
    "training_step": 2 * 32 * 32 * 8 * 27,  # forward and the weights' gradient: the image needs none
}


def encoder_layer():
    LAYER(torch.ones(1, 10, 64))


def encoder_layer_without_gradients():
    """Takes PyTorch's fused fast path."""
    with torch.no_grad():
        LAYER(torch.ones(1, 10, 64))


def encoder_layer_in_inference_mode():
    with torch.inference_mode():
        LAYER(torch.ones(1, 10, 64))


def lstm():
    LSTM(torch.ones(3, 2, 4))


def lstm_without_gradients():
    with torch.no_grad():
        LSTM(torch.ones(3, 2, 4))


def gru():
    GRU(torch.ones(3, 2, 4))


def attention():
    with torch.no_grad():
        x = torch.ones(2, 10, 16)
        ATTENTION(x, x, x, need_weights=False)


def training_step():
    CONV.zero_grad()
    CONV(torch.ones(1, 3, 32, 32)).sum().backward()
