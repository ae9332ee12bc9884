"""Multiply-accumulates of operators that are whole layers, and of the backward ones that a forward may call.

Shapes as `operator_costs` gives them: tensors by their sizes, the rest as it is.
"""

from collections.abc import Callable, Sequence
from math import prod

Shape = Sequence[int]


def attention(query: Shape, key: Shape, value: Shape, *_: object, out: object) -> int:
    """q k^T and p v of (..., heads, L, E), (..., S, E), (..., S, E_v). A causal or other mask saves nothing here."""
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _attention_backward(gradient: Shape, query: Shape, key: Shape, value: Shape, *_: object, out: object) -> int:
    """Scores again, then the gradients of query, key, value and scores."""
    return prod(query[:-1]) * key[-2] * (3 * query[-1] + 2 * value[-1])


def _multi_head(query: Shape, key: Shape, value: Shape, *settings: Shape, out: object) -> int:
    """(B, L, C). settings: width, heads, weights and biases of queries, keys and values (3 C, C) and of the output."""
    third, projection = prod(settings[2]) // 3, prod(settings[4])
    projections = sum(prod(each[:-1]) * third for each in (query, key, value))
    return projections + attention(query, key, value, out=out) + prod(query[:-1]) * projection


def _encoder_layer(src: Shape, *settings: Shape, out: object) -> int:
    """settings: as of _multi_head; GELU, order, eps; both norms; weights and biases of the MLP."""
    qkv, _, projection = settings[2:5]
    first, second = settings[13], settings[15]
    weights = sum(map(prod, (qkv, projection, first, second)))
    return prod(src[:-1]) * weights + attention(src, src, src, out=out)


def _recurrent(x: Shape, weight: Sequence[Shape], *_: object, out: object) -> int:
    """(steps, batch, c), or packed (steps of all, c): every step meets every matrix of every layer and direction."""
    return prod(x[:-1]) * sum(prod(each) for each in weight if len(each) == 2)


def _recurrent_layer(x: Shape, weight0: Shape, weight1: Shape, *_: object, out: object) -> int:
    """One layer in one direction, (steps, batch, c)."""
    return prod(x[:-1]) * (prod(weight0) + prod(weight1))


def _convolution_backward(gradient: Shape, x: Shape, weight: Shape, *settings: object, out: object) -> int:
    """As often the forward's as gradients of input and weight are asked for."""
    transposed, asked = settings[4], settings[7]
    assert isinstance(asked, (list, tuple))
    forward = prod(x if transposed else gradient) * prod(weight[1:])
    return forward * sum(map(bool, asked[:2]))


FUSED: dict[Callable[..., int | None], str] = {  # the operators of each formula
    _multi_head: "_native_multi_head_attention",
    _encoder_layer: "_transformer_encoder_layer_fwd",
    _recurrent: "_cudnn_rnn miopen_rnn",
    _recurrent_layer: "mkldnn_rnn_layer",
    _convolution_backward: "convolution_backward",
    _attention_backward: """
        _scaled_dot_product_flash_attention_backward _scaled_dot_product_flash_attention_for_cpu_backward
        _scaled_dot_product_efficient_attention_backward _scaled_dot_product_cudnn_attention_backward""",
}
