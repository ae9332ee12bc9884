"""Multiply-accumulates of an ONNX graph, from the shapes that ONNX infers.

As in `flops`, a cost is a pure function of shapes and a row of FORMULAS, and an operator that is neither there nor
known to be light is named in `uncounted_ops`; so is one whose shapes cannot be inferred, or with a body of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

from mixprof.lowerings.onnx_graph import inferred, shapes_of
from mixprof.metrics.flops import Counts

Shape = tuple[int, ...]
Attributes = Mapping[str, Any]  # of a node: onnx.AttributeProto by name


def count(model: Any) -> Counts:
    """Cost of one forward of a ModelProto whose inputs have fixed shapes."""
    if model.functions:
        import onnx.inliner

        model = onnx.inliner.inline_local_functions(model)
    model = inferred(model)
    shapes = shapes_of(model.graph)
    macs: Counter[str] = Counter()
    uncounted = set()
    for node in model.graph.node:
        name = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        if name in LIGHT:
            continue
        cost = _macs(node, shapes) if name in FORMULAS else None
        if cost is None:
            uncounted.add(name)
        else:
            macs[name] += cost
    by_op = {name: value for name, value in macs.most_common() if value}
    return Counts(sum(by_op.values()), by_op, tuple(sorted(uncounted)))


def _macs(node: Any, shapes: dict[str, Shape]) -> int | None:
    inputs = [shapes.get(name, None if name else ()) for name in node.input]
    output = shapes.get(node.output[0])
    if output is None or None in inputs:
        return None
    return FORMULAS[node.op_type](inputs, output, {attribute.name: attribute for attribute in node.attribute})


def _convolution(weight: int) -> Callable[..., int]:
    """Of an operator whose kernel, (C_out, C_in / groups, …), is its input number `weight`."""
    return lambda inputs, output, attributes: prod(output) * prod(inputs[weight][1:])


def _transposed_convolution(inputs: Sequence[Shape], output: Shape, attributes: Attributes) -> int:
    """Every input element meets its channel's kernel, (C_in, C_out / groups, …)."""
    return prod(inputs[0]) * prod(inputs[1][1:])


def _product(inputs: Sequence[Shape], output: Shape, attributes: Attributes) -> int:
    return prod(output) * inputs[0][-1]


def _gemm(inputs: Sequence[Shape], output: Shape, attributes: Attributes) -> int:
    transposed = "transA" in attributes and attributes["transA"].i
    return prod(output) * inputs[0][0 if transposed else 1]


def _einsum(inputs: Sequence[Shape], output: Shape, attributes: Attributes) -> int | None:
    """Two factors that share a summed label; one factor, or none summed, multiplies no matrices."""
    equation = attributes["equation"].s.decode().replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if len(terms) == 1:
        return 0
    if len(terms) > 2 or "." in equation or not arrow:
        return None
    sizes = {label: size for term, shape in zip(terms, inputs, strict=True) for label, size in zip(term, shape)}  # noqa: B905
    return prod(sizes.values()) if set(terms[0]) & set(terms[1]) - set(right) else 0


def _attention(inputs: Sequence[Shape], output: Shape, attributes: Attributes) -> int:
    """Both products of (B, H, L, E) or (B, L, H·E) queries with all keys, those of the cache included."""
    query, key = inputs[0], inputs[1]
    past = inputs[4][-2] if len(inputs) > 4 and inputs[4] else 0
    return (prod(query) + prod(output)) * (key[-2] + past)


FORMULAS: dict[str, Callable[[Sequence[Any], Shape, Attributes], int | None]] = {
    "Conv": _convolution(1),
    "ConvInteger": _convolution(1),
    "QLinearConv": _convolution(3),
    "ConvTranspose": _transposed_convolution,
    "MatMul": _product,
    "MatMulInteger": _product,
    "QLinearMatMul": _product,
    "Gemm": _gemm,
    "Einsum": _einsum,
    "Attention": _attention,
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
LIGHT = frozenset(" ".join(_LIGHT_BY_KIND.values()).split())
