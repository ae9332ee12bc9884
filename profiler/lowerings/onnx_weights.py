"""Weights of an ONNX graph: parameters are the elements of its constants, whatever they are stored as.

Scales, zero points, running statistics, shapes and bounds are none. Floats are weights unless every use of them is as
one of these; integers only where an operator takes them for quantized weights.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from mixprof.data.errors import Unsupported
from mixprof.lowerings.onnx_graph import FLOATS, graphs

Uses = dict[str, list[tuple[Any, int]]]  # a value's name -> the nodes that take it, and as which input
# Operator -> its inputs that hold quantized weights.
QUANTIZED = {
    "DequantizeLinear": (0,), "QLinearConv": (3, 8), "QLinearMatMul": (0, 3), "ConvInteger": (1,),
    "MatMulInteger": (0, 1), "MatMulInteger16": (0, 1), "MatMulIntegerToFloat": (0, 1), "DynamicQuantizeMatMul": (1,),
    "DynamicQuantizeLSTM": (1, 2), "QAttention": (1,), "QGemm": (3, 6), "QLinearAdd": (0, 3), "QLinearMul": (0, 3),
    "MatMulNBits": (1,), "MatMulBnb4": (1,), "GatherBlockQuantized": (0,), "QEmbedLayerNormalization": (2, 3, 4, 5, 6),
}  # fmt: skip
# Operator -> its inputs that are scales, zero points, running statistics, sizes or bounds.
SETTINGS = {
    "DequantizeLinear": (1, 2), "QuantizeLinear": (1, 2), "QLinearConv": (1, 2, 4, 5, 6, 7),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7), "MatMulIntegerToFloat": (2, 3, 4, 5), "DynamicQuantizeMatMul": (2, 3),
    "DynamicQuantizeLSTM": (8, 9, 10, 11), "QAttention": (3, 4, 6, 7), "QGemm": (1, 2, 4, 5, 7, 8),
    "QLinearAdd": (1, 2, 4, 5, 6, 7), "QLinearMul": (1, 2, 4, 5, 6, 7), "QLinearSigmoid": (1, 2, 3, 4),
    "QLinearLeakyRelu": (1, 2, 3, 4), "QLinearSoftmax": (1, 2, 3, 4), "QLinearAveragePool": (1, 2, 3, 4),
    "QLinearGlobalAveragePool": (1, 2, 3, 4), "QLinearReduceMean": (1, 2, 3, 4), "QLinearConcat": tuple(range(99)),
    "QEmbedLayerNormalization": tuple(range(8, 18)), "MatMulNBits": (2, 3, 4), "MatMulBnb4": (2,),
    "GatherBlockQuantized": (2, 3), "Resize": (1, 2, 3), "Upsample": (1,), "Clip": (1, 2), "Pad": (1, 2),
    "BatchNormalization": (3, 4), "Dropout": (1,), "OneHot": (1, 2), "NonMaxSuppression": (2, 3, 4), "Range": (0, 1, 2),
}  # fmt: skip
MOVING = ("Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Gather", "Slice")  # input 0 on
UINT8 = 2
BITS = {25: 2, 26: 2, 27: 6, 28: 6, 21: 4, 22: 4, 23: 4}  # of element types that are less than a byte


@dataclass(frozen=True)
class Constant:
    """A constant of a graph: an initializer, or the output of a Constant node."""

    name: str
    data_type: int  # onnx.TensorProto's number
    elements: int
    literal: bool = False  # a number that is written in the code


def constants(model: Any) -> Iterator[Constant]:
    """Every constant, at any depth."""
    for graph in graphs(model):
        for tensor in getattr(graph, "initializer", ()):
            yield Constant(tensor.name, tensor.data_type, prod(tensor.dims))
        for sparse in getattr(graph, "sparse_initializer", ()):
            yield Constant(sparse.values.name, sparse.values.data_type, prod(sparse.values.dims))
        for node in graph.node:
            for attribute in node.attribute if node.op_type == "Constant" else ():
                if (constant := _of_attribute(node.output[0], attribute)) is not None:
                    yield constant


def _of_attribute(name: str, attribute: Any) -> Constant | None:
    if attribute.name == "value":
        return Constant(name, attribute.t.data_type, prod(attribute.t.dims), literal=not attribute.t.dims)
    if attribute.name in ("value_float", "value_floats"):
        return Constant(name, 1, len(attribute.floats) or 1, literal=attribute.name == "value_float")
    return None


def _uses(model: Any) -> Uses:
    uses: Uses = defaultdict(list)
    for graph in graphs(model):
        for node in graph.node:
            for index, name in enumerate(node.input):
                uses[name].append((node, index))
    return uses


def parameters(model: Any) -> int:
    """The number of a graph's parameters."""
    uses, dynamic = _uses(model), _dynamic_scales(model)
    return sum(_parameters(constant, list(_ends(constant.name, uses)), dynamic) for constant in constants(model))


def _parameters(constant: Constant, ends: list[tuple[Any, int]], dynamic: set[str]) -> int:
    for node, index in ends:
        if index in QUANTIZED.get(node.op_type, ()):
            return _unpacked(constant, node)
    if constant.data_type not in FLOATS or constant.literal:
        return 0
    settings = [_is_setting(node, index, dynamic) for node, index in ends]
    return 0 if settings and all(settings) else constant.elements


def _ends(name: str, uses: Uses) -> Iterator[tuple[Any, int]]:
    """The uses of a value behind operators that only move it."""
    for node, index in uses.get(name, ()):
        if node.op_type in MOVING and index == 0:
            yield from _ends(node.output[0], uses)
        else:
            yield node, index


def _unpacked(constant: Constant, node: Any) -> int:
    """The elements of quantized weights, by the operator that takes them apart where a byte holds several."""
    numbers = {attribute.name: attribute.i for attribute in node.attribute}
    if node.op_type in ("MatMulNBits", "MatMulBnb4"):
        return int(numbers["K"] * numbers["N"])
    if node.op_type == "GatherBlockQuantized" and constant.data_type == UINT8:
        return constant.elements * 8 // int(numbers.get("bits", 4))
    return constant.elements


def _dynamic_scales(model: Any) -> set[str]:
    """The scales that are computed of activations: a constant that one is multiplied by is a scale as well."""
    nodes = [node for graph in graphs(model) for node in graph.node]
    return {node.output[1] for node in nodes if node.op_type == "DynamicQuantizeLinear"}


def _is_setting(node: Any, index: int, dynamic: set[str]) -> bool:
    if node.op_type == "Mul" and dynamic & set(node.input):
        return True
    return index in SETTINGS.get(node.op_type, ())


def weights_bytes(model: Any) -> int:
    """Bytes of all constants, scales and shapes included."""
    return sum(-(-constant.elements * _bits(constant.data_type) // 8) for constant in constants(model))


def _bits(data_type: int) -> int:
    from onnx.helper import tensor_dtype_to_np_dtype

    return BITS.get(data_type) or 8 * int(tensor_dtype_to_np_dtype(data_type).itemsize)


def own_dtype(model: Any, path: Path) -> str:
    """The element type that most of the float weights have; without any, that of the first float input or output."""
    elements: Counter[str] = Counter()
    for constant in constants(model):
        if constant.data_type in FLOATS and not constant.literal:
            elements[FLOATS[constant.data_type]] += constant.elements
    values = [*model.graph.input, *model.graph.output]
    types = [FLOATS.get(value.type.tensor_type.elem_type) for value in values]
    dtype = max(elements, key=lambda name: elements[name]) if elements else next(filter(None, types), None)
    if dtype not in ("float32", "float16", "bfloat16"):
        raise Unsupported(
            f"{path}: got a graph in {dtype or 'integers alone'}, expected one in float32, float16 or bfloat16"
        )
    return str(dtype)
