"""Multiply-accumulates of single aten operators: a pure function of shapes each, and its name behind it in _OPERATORS.

An operator that is neither there nor in LIGHT is unknown: its cost is not 0, it is not known.
"""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from mixprof.metrics.fused_costs import FUSED, attention
from mixprof.models.kernels.cpu import costs as cpu
from mixprof.models.kernels.triton import costs as triton

Shape = Sequence[int]
TILE = 8  # channels of a group from which on a grouped convolution can fill a matrix unit


def runs_on(name: str, args: Any) -> str:
    """The unit, "matrix" or "vector", that an operator multiplies on.

    "vector": convolutions with fewer channels a group than a matrix unit's tile has, products of vectors.
    """
    if "conv" in name:
        x, weight = args[1:3] if "backward" in name else args[:2]
        return "vector" if weight.shape[1] < min(TILE, x.shape[1]) else "matrix"
    if name in ("aten.bmm", "aten.mm") and 1 in (*args[0].shape[-2:], args[1].shape[-1]):
        return "vector"
    if name.startswith("mixprof_triton.depthwise"):
        return "vector"
    return "vector" if name in (*SCANS, "aten.mv", "aten.dot", "aten.vdot", "aten.addmv", "aten.addr") else "matrix"


def macs_of(name: str, args: Any, result: Any, keywords: Mapping[str, Any] | None = None) -> int | None:
    """Multiply-accumulates of an operator; None where no formula knows them."""
    if name not in FORMULAS and name not in REGISTERED:
        return None
    if any(isinstance(leaf, Tensor) and leaf.is_nested for leaf in tree_leaves((args, result))):
        return None  # its sizes are data
    shapes = tree_map_only(Tensor, lambda tensor: tuple(tensor.shape), (args, result, dict(keywords or {})))
    if name in REGISTERED:
        return REGISTERED[name](*shapes[0], **shapes[2], out_shape=shapes[1])
    return FORMULAS[name](*shapes[0], out=shapes[1])


def is_light(func: torch._ops.OpOverload) -> bool:
    """Whether an operator is known to do no multiply-accumulates worth the name."""
    namespace, _, name = str(func.overloadpacket).removesuffix("_").partition(".")
    if is_fusable(func) or namespace in ("prim", "profiler"):
        return True
    return namespace == "aten" and (name in LIGHT or _is_backward_of_light(name))


def is_known(name: str) -> bool:
    """Whether the cost of "aten.mm" is known here, by a formula or as light. It need not be loaded."""
    namespace, _, operator = name.partition(".")
    if name in FORMULAS or namespace in ("prim", "profiler"):
        return True
    packet = getattr(torch.ops.aten, operator, None) if namespace == "aten" else None
    overloads = [] if packet is None else [getattr(packet, each) for each in packet.overloads()]
    composed = torch._C.DispatchKey.CompositeImplicitAutograd  # of operators that are counted themselves
    return any(is_light(each) or each.has_kernel_for_dispatch_key(composed) for each in overloads)


def _is_backward_of_light(name: str) -> bool:
    """Whether it is the gradient of a light operator: "gelu_backward", "_softmax_backward_data"."""
    forward, suffix, _ = name.partition("_backward")
    if not suffix or not hasattr(torch.ops.aten, forward):
        return name.startswith(("nll_loss_", "nll_loss2d_", "log_sigmoid_", "embedding_")) and bool(suffix)
    packet = getattr(torch.ops.aten, forward)
    return any(is_light(getattr(packet, overload)) for overload in packet.overloads())


def is_fusable(func: torch._ops.OpOverload) -> bool:
    """Whether an operator only moves values, or computes each from those at one place of its inputs."""
    if func.is_view or torch.Tag.inplace_view in func.tags or torch.Tag.pointwise in func.tags:
        return True
    namespace, _, name = str(func.overloadpacket).removesuffix("_").partition(".")
    return namespace == "aten" and name in FUSABLE


def _matrix_product(a: Shape, b: Shape, *_: object, out: object) -> int:
    """mm (n, k) (k, m), bmm (b, n, k) (b, k, m), mv (n, k) (k), dot (k) (k): a value of a meets every column of b."""
    return prod(a) * (b[-1] if len(b) > 1 else 1)


def _added_matrix_product(bias: Shape, a: Shape, b: Shape, *_: object, out: object) -> int:
    return _matrix_product(a, b, out=out)


def _outer_product(bias: Shape, a: Shape, b: Shape, *_: object, out: object) -> int:
    return prod(a) * prod(b)


def _linear(x: Shape, weight: Shape, *_: object, out: object) -> int:
    """(..., c_in) by (c_out, c_in) or (c_in)."""
    return prod(x) * prod(weight[:-1])


def _convolution(x: Shape, weight: Shape, *_: object, out: Shape) -> int:
    """Each output value is a sum over a (c_in / groups, *kernel) patch, zero padding included."""
    return prod(out) * prod(weight[1:])


def _transposed_convolution(x: Shape, weight: Shape, *_: object, out: object) -> int:
    """Each input value is spread over a (c_out / groups, *kernel) patch, cropped borders included."""
    return prod(x) * prod(weight[1:])


def _any_convolution(x: Shape, weight: Shape, *settings: object, out: Shape) -> int:
    """settings: bias, stride, padding, dilation, whether it is transposed, …"""
    return (_transposed_convolution if settings[4] else _convolution)(x, weight, out=out)


def _time_convolution(x: Shape, weight: Shape, *_: object, out: Shape) -> int:
    """conv_tbc: (time, batch, c_in) by (kernel, c_in, c_out)."""
    return prod(out) * prod(weight[:2])


def _flash_forward(
    query: Shape, key: Shape, value: Shape, lengths: object = None, *_: object, out: object
) -> int | None:
    """(batch, L, heads, E) as flash's own forward takes it. None if packed: the lengths are data, not shapes."""
    return attention(_heads_first(query), _heads_first(key), _heads_first(value), out=out) if lengths is None else None


def _efficient_forward(
    query: Shape, key: Shape, value: Shape, bias: object = None, lengths: object = None, *_: object, out: object
) -> int | None:
    return _flash_forward(query, key, value, lengths, out=out)


def _heads_first(shape: Shape) -> Shape:
    batch, length, heads, width = shape
    return batch, heads, length, width


def _selective_scan(u: Shape, *_: object, out_shape: object) -> int:
    """mixprof.models.scan: a state and its readout for each value."""
    return 2 * prod(u)


def _selective_scan_backward(gradient: Shape, *_: object, out_shape: object) -> int:
    """Both factors' gradients for each of those; the states that it computes anew are not counted."""
    return 4 * prod(gradient)


SCANS = {"mixprof.selective_scan": _selective_scan, "mixprof.selective_scan_backward": _selective_scan_backward}
REGISTERED: dict[str, Callable[..., int]] = {**SCANS}  # and those of users' own: see `registered`
_OPERATORS: dict[Callable[..., int | None], str] = {  # of each formula
    _matrix_product: "mm bmm mv dot vdot _int_mm _scaled_mm",
    _added_matrix_product: "addmm _addmm_activation addmv baddbmm addbmm",
    _outer_product: "addr",
    _linear: "linear mkldnn_linear",
    _any_convolution: "convolution _convolution convolution_overrideable",
    _convolution: """
        mkldnn_convolution cudnn_convolution cudnn_convolution_relu cudnn_convolution_add_relu miopen_convolution
        miopen_depthwise_convolution miopen_convolution_relu miopen_convolution_add_relu _nnpack_spatial_convolution
        _slow_conv2d_forward _conv_depthwise2d conv_depthwise3d slow_conv3d_forward slow_conv_dilated2d
        slow_conv_dilated3d""",
    _transposed_convolution: """
        cudnn_convolution_transpose miopen_convolution_transpose slow_conv_transpose2d slow_conv_transpose3d""",
    _time_convolution: "conv_tbc",
    attention: """
        scaled_dot_product_attention _scaled_dot_product_attention_math _scaled_dot_product_attention_math_for_mps
        _scaled_dot_product_flash_attention _scaled_dot_product_flash_attention_for_cpu
        _scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention
        _scaled_dot_product_fused_attention_overrideable""",
    _flash_forward: "_flash_attention_forward",
    _efficient_forward: "_efficient_attention_forward",
    **FUSED,
}
FORMULAS = (
    {f"aten.{name}": formula for formula, names in _OPERATORS.items() for name in names.split()}
    | triton.MACS
    | cpu.MACS
)

_LIGHT_BY_KIND = {
    "copies and factories": """
        _copy_from _lazy_clone _to_copy _unsafe_view arange bartlett_window blackman_window clone complex copy detach
        empty empty_like empty_permuted empty_strided eye fill full full_like hamming_window hann_window kaiser_window
        lift lift_fresh linspace logspace new_empty new_empty_strided new_full new_ones new_zeros ones ones_like polar
        range resize resize_as scalar_tensor set tril_indices triu_indices zero zeros zeros_like""",
    "random numbers": """
        bernoulli binomial cauchy exponential geometric log_normal multinomial native_dropout normal poisson rand
        rand_like randint randint_like randn randn_like random randperm uniform""",
    "questions put to a tensor": """
        _assert_async _assert_scalar _assert_tensor_metadata _has_same_storage_numel _is_all_true _is_any_true
        _local_scalar_dense allclose equal is_pinned is_same_size record_stream sym_numel sym_size sym_stride""",
    "pointwise, but their in-place forms lack the tag": """
        _add_relu abs copysign eq floor_divide gcd ge gt heaviside lcm le lt ne xlogy""",
    "reductions and scans": """
        _aminmax _logcumsumexp all amax amin aminmax any argmax argmin bincount count_nonzero cummax cummin cumprod
        cumsum dist histc kthvalue linalg_vector_norm logcumsumexp logsumexp max mean median min mode nanmedian nansum
        native_norm norm prod std std_mean sum trace var var_mean""",
    "norms, softmaxes, losses, and activations that no tag calls pointwise": """
        _batch_norm_no_update _batch_norm_with_update _batch_norm_with_update_functional _fused_rms_norm _log_softmax
        _masked_softmax _native_batch_norm_legit _native_batch_norm_legit_functional
        _native_batch_norm_legit_no_training _prelu_kernel _safe_softmax _softmax _weight_norm_interface
        binary_cross_entropy binary_cross_entropy_with_logits cudnn_batch_norm gelu glu hardswish huber_loss
        _thnn_fused_gru_cell _thnn_fused_lstm_cell log_sigmoid_forward miopen_batch_norm mish mse_loss
        native_batch_norm native_group_norm native_layer_norm
        nll_loss2d_forward nll_loss_forward renorm rrelu_with_noise rsub smooth_l1_loss soft_margin_loss threshold""",
    "pooling and resampling on a fixed grid": """
        _adaptive_avg_pool2d _adaptive_avg_pool3d _upsample_bicubic2d_aa _upsample_bilinear2d_aa
        _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d adaptive_max_pool2d
        adaptive_max_pool3d avg_pool2d avg_pool3d fractional_max_pool2d fractional_max_pool3d max_pool2d_with_indices
        max_pool3d_with_indices max_unpool2d max_unpool3d mkldnn_adaptive_avg_pool2d mkldnn_max_pool2d
        mkldnn_max_pool3d upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d
        upsample_nearest2d upsample_nearest3d upsample_trilinear3d""",
    "movement: indexing, padding, unfolding, joining, sorting": """
        _chunk_cat _embedding_bag _embedding_bag_forward_only _index_put_impl _nested_tensor_from_mask
        _nested_tensor_from_mask_left_aligned _pack_padded_sequence _stack _unique
        _unique2 _unsafe_index _unsafe_index_put _unsafe_masked_index as_strided_scatter block_diag bucketize cat
        channel_shuffle col2im constant_pad_nd diag_embed diagonal_scatter embedding flip gather im2col index
        index_add index_copy index_fill index_put index_reduce index_select isin masked_fill masked_scatter
        masked_select nonzero nonzero_static pixel_shuffle pixel_unshuffle put reflection_pad1d reflection_pad2d
        reflection_pad3d repeat repeat_interleave replication_pad1d replication_pad2d replication_pad3d roll rot90
        scatter scatter_add scatter_reduce searchsorted segment_reduce select_scatter slice_scatter sort split_copy
        split_with_sizes_copy stack take to_padded_tensor topk tril triu unique_consecutive unique_dim
        unique_dim_consecutive
        unsafe_split unsafe_split_with_sizes""",
}
LIGHT = frozenset(" ".join(_LIGHT_BY_KIND.values()).split())
_FUSABLE_KINDS = ("copies and", "pointwise", "movement")
FUSABLE = frozenset(
    name for kind, names in _LIGHT_BY_KIND.items() if kind.startswith(_FUSABLE_KINDS) for name in names.split()
)
