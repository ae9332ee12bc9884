"""What operators of ONNX and of onnxruntime's own domains cost: a pure function of shapes and attributes for each.

An operator that is neither in FORMULAS nor in LIGHT is named by who counts. Of onnxruntime's fused operators those
whose cost depends on values (experts, caches that are shared, sparse attention) have no formula on purpose.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

Shape = tuple[int, ...]
DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True)
class Node:
    """An operator with the shapes that it meets: () for a scalar, and for an input that is left out."""

    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    attributes: Mapping[str, Any]  # name -> onnx.AttributeProto

    def number(self, name: str) -> int:
        """An attribute that is a whole number; 0 where it is not given."""
        return int(self.attributes[name].i) if name in self.attributes else 0

    def axis(self, index: int, axis: int) -> int:
        """The size of an axis of an input; 0 where that input is left out."""
        return self.inputs[index][axis] if len(self.inputs) > index and self.inputs[index] else 0


def name_of(node: Any) -> str:
    """An operator's name, with its domain where that is not ONNX's own."""
    return str(node.op_type if node.domain in DOMAINS else f"{node.domain}.{node.op_type}")


def _convolution(weight: int) -> Callable[[Node], int]:
    """Of an operator whose kernel, (C_out, C_in / groups, …), is its input number `weight`."""
    return lambda node: prod(node.outputs[0]) * prod(node.inputs[weight][1:])


def _transposed_convolution(node: Node) -> int:
    """Every input element meets its channel's kernel, (C_in, C_out / groups, …)."""
    return prod(node.inputs[0]) * prod(node.inputs[1][1:])


def _product(node: Node) -> int:
    return prod(node.outputs[0]) * node.inputs[0][-1]


def _fused_product(node: Node) -> int:
    """(…, M, K), (…, K, M) where transA, (K, …, M) where its axes of batches are moved as well."""
    if not node.number("transA"):
        return _product(node)
    return prod(node.outputs[0]) * node.inputs[0][0 if node.number("transBatchA") else -2]


def _by_depth(node: Node) -> int:
    """Of weights (N, K) that are packed in a way of their own."""
    return prod(node.outputs[0]) * node.number("K")


def _gemm(node: Node) -> int:
    return prod(node.outputs[0]) * node.inputs[0][0 if node.number("transA") else 1]


def _einsum(node: Node) -> int | None:
    """Two factors that share a summed label; one factor, or none summed, multiplies no matrices."""
    equation = node.attributes["equation"].s.decode().replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if len(terms) == 1:
        return 0
    if len(terms) > 2 or "." in equation or not arrow:
        return None
    labelled = [
        (label, size)
        for term, shape in zip(terms, node.inputs, strict=True)
        for label, size in zip(term, shape, strict=True)
    ]
    return prod(dict(labelled).values()) if set(terms[0]) & set(terms[1]) - set(right) else 0


def _attention(node: Node) -> int:
    """Both products of (B, H, L, E) or (B, L, H·E) queries with all keys, those of the cache included."""
    keys = node.inputs[1][-2] + node.axis(4, -2)
    return (prod(node.inputs[0]) + prod(node.outputs[0])) * keys


def _projected_attention(past: int) -> Callable[[Node], int | None]:
    """Projection (B, L, D) by (D, E + E + F), then both products; a cache (2, B, H, P, E / H) is input `past`."""

    def macs(node: Node) -> int | None:
        if node.number("past_present_share_buffer"):
            return None  # how much of the buffer is filled only values tell
        (batch, length, width), (_, wide) = node.inputs[0], node.inputs[1]
        given, values = node.attributes.get("qkv_hidden_sizes"), node.outputs[0][-1]
        queries = int(given.ints[0]) if given is not None else wide // 3
        return batch * length * (width * wide + (queries + values) * (length + node.axis(past, -2)))

    return macs


def _multi_head_attention(node: Node) -> int:
    """Queries (B, L, E), or packed (B, L, H, 3, E / H); keys (B, S, E), (B, H, S, E / H) or (B, S, H, 2, E / H)."""
    query, keys = node.inputs[0], node.axis(1, 2 if len(node.inputs) > 1 and len(node.inputs[1]) == 4 else 1)
    batch, length = query[:2]
    width = query[2] if len(query) == 3 else query[2] * query[4]
    return (batch * length * width + prod(node.outputs[0])) * ((keys or length) + node.axis(6, -2))


def _grouped_attention(node: Node) -> int | None:
    """Queries and outputs (B, L, H·E), all keys and values in the second output, (B, G, S, E)."""
    keys, past = node.outputs[1][-2], node.axis(3, -2)
    if keys == past:
        return None  # a shared buffer
    return 2 * prod(node.outputs[0]) * keys


def _recurrent(node: Node) -> int:
    """Steps and sequences, (T, B, I) or (B, T, I), each by weights (D, G·H, I) and (D, G·H, H) of all directions."""
    return prod(node.inputs[0][:2]) * (prod(node.inputs[1]) + prod(node.inputs[2]))


_OPERATORS: dict[Callable[[Node], int | None], str] = {  # of each formula; a dot in front: of com.microsoft
    _convolution(1): "Conv ConvInteger .FusedConv .NhwcConv .NhwcFusedConv .nchwc.Conv",
    _convolution(3): "QLinearConv .QLinearConv",
    _transposed_convolution: "ConvTranspose",
    _product: """
        MatMul MatMulInteger QLinearMatMul .DynamicQuantizeMatMul .MatMulIntegerToFloat .MatMulInteger16
        .GemmFastGelu""",
    _fused_product: ".FusedMatMul .FusedMatMulActivation .TransposeMatMul",
    _by_depth: ".MatMulNBits .MatMulBnb4",
    _gemm: "Gemm .FusedGemm .GemmFloat8 .QGemm",
    _einsum: "Einsum",
    _attention: "Attention",
    _projected_attention(4): ".Attention",
    _projected_attention(8): ".QAttention",
    _multi_head_attention: ".MultiHeadAttention",
    _grouped_attention: ".GroupQueryAttention",
    _recurrent: "LSTM GRU RNN .DynamicQuantizeLSTM",
}
FORMULAS = {
    f"com.microsoft{name}" if name.startswith(".") else name: formula
    for formula, names in _OPERATORS.items()
    for name in names.split()
}

_LIGHT_BY_KIND = {
    "constants, casts and shapes": """
        BitCast BlackmanWindow Cast CastLike Constant ConstantOfShape EyeLike HammingWindow HannWindow Identity
        MelWeightMatrix Range Shape Size""",
    "random numbers": "Bernoulli Dropout Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike",
    "pointwise": """
        Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Ceil Celu Clip
        Cos Cosh DequantizeLinear Div DynamicQuantizeLinear Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual
        HardSigmoid HardSwish IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow
        QuantizeLinear Reciprocal Relu RotaryEmbedding Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt
        Sub Sum SwiGLU Swish Tan Tanh ThresholdedRelu Where Xor""",
    "reductions, scans, norms and softmaxes": """
        ArgMax ArgMin BatchNormalization CumProd CumSum GroupNormalization Hardmax InstanceNormalization
        LRN LayerNormalization LogSoftmax LpNormalization MeanVarianceNormalization RMSNormalization ReduceL1 ReduceL2
        ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Softmax""",
    "pooling and resampling on a fixed grid": """
        AveragePool GlobalAveragePool GlobalLpPool GlobalMaxPool LpPool MaxPool MaxUnpool Resize Upsample""",
    "movement": """
        CenterCropPad Col2Im Compress Concat ConcatFromSequence DepthToSpace Expand Flatten Gather GatherElements
        GatherND NonMaxSuppression NonZero OneHot Pad Reshape ReverseSequence Scatter ScatterElements ScatterND
        SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength Slice SpaceToDepth Split
        SplitToSequence Squeeze TensorScatter Tile TopK Transpose Trilu Unique Unsqueeze""",
}
_LIGHT_OF_ONNXRUNTIME = {
    "com.microsoft": """
        BiasAdd BiasDropout BiasGelu BiasSoftmax BiasSplitGelu BitmaskBiasDropout BitmaskDropout ComplexMul
        ComplexMulConj CropAndResize DequantizeLinear EmbedLayerNormalization ExpandDims FastGelu GatherBlockQuantized
        GatherND Gelu GroupNorm MaxpoolWithMask MulInteger NGramRepeatBlock NhwcMaxPool Pad QEmbedLayerNormalization
        QLinearAdd QLinearAveragePool QLinearConcat QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul
        QLinearReduceMean QLinearSigmoid QLinearSoftmax QLinearWhere QuantizeLinear QuickGelu Range ReduceSumInteger
        RemovePadding RestorePadding RotaryEmbedding ScaledSiLU SkipGroupNorm SkipLayerNormalization
        SkipSimplifiedLayerNormalization SwiGLU Trilu Unique""",
    "com.microsoft.nchwc": "AveragePool GlobalAveragePool GlobalMaxPool MaxPool ReorderInput ReorderOutput Upsample",
}
LIGHT = frozenset(
    [*" ".join(_LIGHT_BY_KIND.values()).split(), "SimplifiedLayerNormalization"]  # onnxruntime's in ONNX's domain
    + [f"{domain}.{name}" for domain, names in _LIGHT_OF_ONNXRUNTIME.items() for name in names.split()]
)
