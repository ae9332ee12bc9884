"""Bytes that the CPU's kernels allocate beside their outputs: one pure function of shapes and strides per operator.

As the allocator's events show it for float32 in torch 2.13 on x86 with AVX-512, and as the kernels' sources explain it.
Kernels that are not in `WORKSPACES` take nothing worth the name. Which kernel a convolution or an attention will run is
asked of the installed torch itself, on stand-ins of the same shape that own next to no memory.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format

_BLOCK = 16  # channels of a oneDNN block with AVX-512


def stand_in(tensor: Tensor) -> Tensor:
    """A CPU tensor of the same shape, dtype and density of its last axis, over storage for that axis alone."""
    dense = tensor.shape[-1] if tensor.stride(-1) == 1 else 1
    return torch.empty(dense, dtype=tensor.dtype, device="cpu").expand(tensor.shape)


def nbytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _copy(tensor: Tensor, memory_format: torch.memory_format = torch.contiguous_format) -> int:
    """Bytes of making a tensor contiguous: 0 if it is."""
    return 0 if tensor.is_contiguous(memory_format=memory_format) else nbytes(tensor)


def _copied_input(result: object, x: Tensor, *_: object) -> int:
    return _copy(x)


def _roll(out: Tensor, x: Tensor, shifts: Sequence[int], dims: Sequence[int] = ()) -> int:
    """One axis after the other: each but the last leaves its result behind (TensorTransformations.cpp)."""
    return max(len(dims) - 1, 0) * nbytes(out)


def _unfold(out: Tensor, x: Tensor, *_: object) -> int:
    """The output starts in the input's size and is resized (Im2Col.cpp), and the input made contiguous."""
    return nbytes(x) + _copy(x)


def _safe_softmax(out: Tensor, x: Tensor, *_: object) -> int:
    """A boolean per element: where is a whole row -inf?"""
    return out.numel() + _copy(x)


def _attention(
    result: Sequence[Tensor], query: Tensor, key: Tensor, value: Tensor, *flags: object,
    attn_mask: Tensor | None = None, scale: float | None = None,
) -> int:  # fmt: skip
    """Scores, row maxima, row sums and the output of one tile per thread, float or wider (FlashAttentionKernel.cpp).

    Half precision keeps the scores once more in its own type. A mask with gaps in its rows is copied.
    """
    length = query.shape[-2]
    tile = 256 if length >= 768 else 64 if length >= 192 else 32
    rows, columns = min(tile, length), min(512, key.shape[-2])
    value_bytes = max(4, query.element_size())
    tile_bytes = rows * (columns + 2 + query.shape[-1]) * value_bytes + (query.element_size() == 2) * rows * columns * 2
    copied = nbytes(attn_mask) if attn_mask is not None and attn_mask.stride(-1) > 1 else 0
    return copied + torch.get_num_threads() * tile_bytes


def _convolution(out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, *settings: Any) -> int:
    """settings: stride, padding, dilation, whether it is transposed, output padding, groups."""
    stride, padding, *_, groups = settings
    backend = torch._C._select_conv_backend(stand_in(x), stand_in(weight), None, *settings, None).name
    channels_last = any(suggest_memory_format(tensor) == torch.channels_last for tensor in (x, weight))
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    copies = _copy(x, memory_format) + _copy(weight, memory_format)
    if backend == "Mkldnn":
        return copies + (_blocked_weight(weight, groups) if channels_last else _blocked(out, x, weight, groups))
    if backend == "Slow2d":
        return copies + _columns(out, weight, stride, padding, groups)
    return copies


def _convolution_backward(
    result: Sequence[Tensor | None], gradient: Tensor, x: Tensor, weight: Tensor, sizes: object, *settings: Any
) -> int:
    """settings: as of a forward, then which of the three gradients are wanted.

    oneDNN sums the weight's gradient in blocks of outputs by inputs, those of every group padded, and hands it on
    by way of a copy; in half precision it sums in float32, of an image's maps in blocks. Contiguous maps are reordered
    to blocks, one after the other.
    """
    stride, padding, *_, groups, asked = settings
    backend = torch._C._select_conv_backend(stand_in(x), stand_in(weight), None, *settings[:-1], None).name
    if backend == "Slow2d":
        return _columns(gradient, weight, stride, padding, 1) if asked[0] or asked[1] else 0
    if backend != "Mkldnn" or not asked[1]:
        return 0
    channels_last = any(suggest_memory_format(tensor) == torch.channels_last for tensor in (x, weight))
    if not channels_last:
        return max(nbytes(x), nbytes(gradient), nbytes(weight) if groups == 1 else 0)
    c_out, c_in = weight.shape[0] // groups, weight.shape[1]
    inputs = c_in if groups == 1 and c_in < _BLOCK else _padded(c_in, _BLOCK)
    blocks = groups * _padded(c_out, _BLOCK) * inputs * prod(weight.shape[2:]) * weight.element_size()
    scratch = nbytes(weight)
    if weight.element_size() == 2:
        rows = groups * _padded(c_in, _BLOCK) * prod(x.shape[2:-1]) * (x.shape[-1] + 4)
        scratch = 2 * blocks + 2 * (rows + groups * _padded(c_out, _BLOCK) * prod(gradient.shape[2:]))
    return _copy(weight, torch.channels_last) + blocks + scratch


def _blocked_weight(weight: Tensor, groups: int, inputs: int = 1) -> int:
    """The weight reordered, its outputs padded to whole blocks and its inputs to a multiple of `inputs`."""
    c_out, c_in = weight.shape[:2]
    return _padded(c_out, _BLOCK) * _padded(c_in, inputs) * prod(weight.shape[2:]) * weight.element_size()


def _blocked(out: Tensor, x: Tensor, weight: Tensor, groups: int) -> int:
    """Contiguous maps: oneDNN reorders input, weight and output to blocks of channels, then the output back.

    The first two are freed before the way back. Fewer channels than a block ("a first convolution") are read as is.
    """
    plain = groups == 1 and x.shape[1] < _BLOCK
    reordered_x = 0 if plain else nbytes(x) // x.shape[1] * _padded(x.shape[1], _BLOCK)
    reordered_weight = _blocked_weight(weight, groups, _BLOCK if groups == 1 and not plain else 1)
    reordered_out = nbytes(out) // out.shape[1] * _padded(out.shape[1], _BLOCK)
    return max(reordered_x + reordered_weight + reordered_out - nbytes(out), reordered_out)


def _padded(channels: int, block: int) -> int:
    return -(-channels // block) * block


def _columns(out: Tensor, weight: Tensor, stride: list[int], padding: list[int], groups: int) -> int:
    """The unfolded input of one group, and the groups' outputs before they are joined; none for a plain 1x1."""
    outputs = nbytes(out) if groups > 1 else 0
    if prod(weight.shape[2:]) == 1 and max(stride) == 1 and not any(padding):
        return outputs
    positions = out.shape[0] * prod(out.shape[2:])
    return outputs + positions * prod(weight.shape[1:]) * out.element_size()


# Functions of an operator's result and arguments
WORKSPACES: dict[str, Callable[..., int]] = {
    "aten.convolution": _convolution,
    "aten.convolution_backward": _convolution_backward,
    "aten._scaled_dot_product_flash_attention_for_cpu": _attention,
    "aten._safe_softmax": _safe_softmax,
    "aten._softmax": _copied_input,
    "aten._log_softmax": _copied_input,
    "aten.native_layer_norm": _copied_input,
    "aten.im2col": _unfold,
    "aten.roll": _roll,
}
