"""Multiply-accumulates by forward hooks on layers, from each layer's own closed form: shares nothing with our counter.

A layer in FORMULAS is counted whole, once a call; what lies within it is not looked at. A module of a test's own that
multiplies in its forward has a method `macs(inputs, output) -> int`, and its children are counted besides.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor, nn


def count(module: nn.Module, *inputs: object, **keywords: object) -> int:
    """MACs of one forward of a module, batch included. Layers that are called several times count each time."""
    total = [0]

    def note(layer: Any, given: tuple, named: dict, made: object) -> None:
        values, formula = (*given, *named.values()), formula_of(layer)
        total[0] += formula(layer, values, made) if formula else layer.macs(values, made)

    hooks = [layer.register_forward_hook(note, with_kwargs=True) for layer in counted(module)]
    try:
        with torch.no_grad():
            module(*inputs, **keywords)
    finally:
        for hook in hooks:
            hook.remove()
    return total[0]


def formula_of(layer: nn.Module) -> Callable[..., int] | None:
    """The closed form of a layer, also where a parametrization made a class of its own of it."""
    return next((FORMULAS[kind] for kind in type(layer).__mro__ if kind in FORMULAS), None)


def counted(module: nn.Module) -> list[nn.Module]:
    """The layers that are counted, each once: outermost ones in FORMULAS, and those with a formula of their own."""
    chosen: dict[int, nn.Module] = {}

    def visit(layer: nn.Module) -> None:
        closed = formula_of(layer) is not None
        if closed or hasattr(layer, "macs"):
            chosen[id(layer)] = layer
        for child in () if closed else layer.children():
            visit(child)

    visit(module)
    return list(chosen.values())


def _convolution(layer: Any, given: tuple, made: Tensor) -> int:
    return made.numel() * layer.in_channels // layer.groups * prod(layer.kernel_size)


def _transposed(layer: Any, given: tuple, made: Tensor) -> int:
    return given[0].numel() * layer.out_channels // layer.groups * prod(layer.kernel_size)


def _linear(layer: Any, given: tuple, made: Tensor) -> int:
    return made.numel() * layer.in_features


def _bilinear(layer: Any, given: tuple, made: Tensor) -> int:
    """y_k = x1' A_k x2: x1 A for every k, then the product with x2."""
    rows = made.numel() // layer.out_features
    return rows * layer.out_features * layer.in2_features * (layer.in1_features + 1)


def _recurrent(layer: Any, given: tuple, made: tuple) -> int:
    """Steps x gates x hidden x (inputs + state), of each layer and direction, and the projection's."""
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[type(layer).__name__]
    directions, state = 1 + layer.bidirectional, layer.proj_size or layer.hidden_size
    steps = given[0].numel() // layer.input_size
    macs = 0
    for depth in range(layer.num_layers):
        width = layer.input_size if depth == 0 else state * directions
        projection = layer.hidden_size * layer.proj_size
        macs += directions * (gates * layer.hidden_size * (width + state) + projection)
    return steps * macs


def _cell(layer: Any, given: tuple, made: object) -> int:
    gates = {"LSTMCell": 4, "GRUCell": 3, "RNNCell": 1}[type(layer).__name__]
    rows = given[0].numel() // layer.input_size
    return rows * gates * layer.hidden_size * (layer.input_size + layer.hidden_size)


def attention(embed: int, queries: tuple[int, int], keys: tuple[int, int], batch: int) -> int:
    """Projections of queries (length, width), keys and values (length, width), both products, the output's.

    A query's, key's and value's width may differ from `embed`, the width that heads share.
    """
    (length, width), (others, other_width) = queries, keys
    projections = length * width * embed + 2 * others * other_width * embed + length * embed * embed
    return batch * (projections + 2 * length * others * embed)


def _multihead(layer: Any, given: tuple, made: tuple) -> int:
    query, key = given[:2]
    axis = 1 if layer.batch_first else 0
    batch = query.shape[1 - axis] if query.dim() == 3 else 1
    sizes = [(each.shape[axis if each.dim() == 3 else 0], each.shape[-1]) for each in (query, key)]
    return attention(layer.embed_dim, sizes[0], sizes[1], batch)


def _feed_forward(layer: Any, tokens: int) -> int:
    return 2 * tokens * layer.linear1.in_features * layer.linear1.out_features


def _encoder_layer(layer: Any, given: tuple, made: Tensor) -> int:
    x, width = given[0], given[0].shape[-1]
    length = x.shape[1 if layer.self_attn.batch_first else 0]
    tokens = x.numel() // width
    return attention(width, (length, width), (length, width), tokens // length) + _feed_forward(layer, tokens)


def _decoder_layer(layer: Any, given: tuple, made: Tensor) -> int:
    x, memory = given[:2]
    width, axis = x.shape[-1], 1 if layer.self_attn.batch_first else 0
    length, others, tokens = x.shape[axis], memory.shape[axis], x.numel() // x.shape[-1]
    batch = tokens // length
    own = attention(width, (length, width), (length, width), batch)
    crossed = attention(width, (length, width), (others, width), batch)
    return own + crossed + _feed_forward(layer, tokens)


FORMULAS: dict[type, Callable[..., int]] = {
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), _convolution),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), _transposed),
    nn.Linear: _linear,
    nn.modules.linear.NonDynamicallyQuantizableLinear: _linear,
    nn.Bilinear: _bilinear,
    **dict.fromkeys((nn.LSTM, nn.GRU, nn.RNN), _recurrent),
    **dict.fromkeys((nn.LSTMCell, nn.GRUCell, nn.RNNCell), _cell),
    nn.MultiheadAttention: _multihead,
    nn.TransformerEncoderLayer: _encoder_layer,
    nn.TransformerDecoderLayer: _decoder_layer,
}
