"""int8 and fp8: a float32 graph quantized from one calibration pass, in QDQ form, one file for all engines.

onnxruntime's quantizer does it: it comes with onnxruntime, its file is plain ONNX that OpenVINO and TensorRT read, and
its rules are few and explicit; NNCF and ModelOpt tune for one engine each, and bring a training framework along.
Products alone are quantized: weights symmetric per channel, activations symmetric per tensor. All else stays in float.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixprof.data.errors import Unsupported, first_line
from mixprof.data.json import digest
from mixprof.lowerings import Lowered, Proof, Target

PRODUCTS = ("Conv", "MatMul", "Gemm")
# Of onnxruntime's executed graphs: products in integers, and others that are not.
INTEGER = {
    "QLinearConv",
    "QLinearMatMul",
    "MatMulIntegerToFloat",
    "QGemm",
    "MatMulInteger",
    "ConvInteger",
    "QAttention",
}
FLOAT = {*PRODUCTS, "FusedConv", "FusedMatMul", "FusedGemm", "NhwcFusedConv", "Attention", "MultiHeadAttention"}
LEAST_OPSET = 13
SETTINGS = {"ActivationSymmetric": True, "WeightSymmetric": True}
QUANTIZERS = {
    "int8": "onnxruntime's, static, QDQ, int8, symmetric; weights per channel, activations per tensor",
    "fp8": "onnxruntime's, static, QDQ, float8 e4m3fn, scales by the distribution; one per tensor",
}
Feeds = dict[str, np.ndarray]
Products = Mapping[str, tuple[str, bool]]  # of an executed graph: node -> its kind, and whether it is in integers


@dataclass(frozen=True)
class Calibration:
    """What activations are measured on: arrays by an input's name, "" for that of a model with one input."""

    arrays: Mapping[str, Tensor]  # (samples, …) of each input
    sha256: str
    words: str  # where they come from


def quantized(path: Path, inputs: tuple[Tensor, ...], target: Target) -> Path:
    """The quantized graph of a float32 one, beside it; that of an earlier launch where there is one.

    Unsupported without calibration, for one that does not fit, and where the quantizer leaves a product in float.
    """
    calibration = target.calibration
    if calibration is None:
        raise Unsupported(
            f"dtype '{target.dtype}': got no calibration, expected --calibration FILE.npz, a folder of images, or "
            "random"
        )
    made = path.with_name(f"{path.stem}.{digest([calibration.sha256])[:16]}.{target.dtype}.onnx")
    if made.with_suffix(".json").exists():
        return made
    import onnx

    model = onnx.load(str(path))
    constants = {tensor.name for tensor in model.graph.initializer}  # inputs, too, in older files
    names = [value.name for value in model.graph.input if value.name not in constants]
    feeds = batches(calibration, dict(zip(names, inputs, strict=True)))
    named(model)
    kept = last_product(model)
    temporary = made.with_name(f"{os.getpid()}.{made.name}")
    onnx.save(model, str(temporary))
    _quantize(temporary, temporary, feeds, kept, target.dtype)
    refuse_float(onnx.load(str(temporary)), kept)
    facts = {
        "quantizer": QUANTIZERS[target.dtype],
        "calibration": calibration.words,
        "calibration_sha256": calibration.sha256,
        "calibration_batches": len(feeds),
        "kept_in_float": kept,
        "top1_agreement": agreement(path, temporary, feeds),
    }
    os.replace(temporary, made)
    made.with_suffix(".json").write_text(json.dumps(facts))
    return made


def described(lowered: Lowered, path: Path, inputs: tuple[Tensor, ...]) -> dict[str, Any]:
    """The fields of a Lowered that a quantized graph adds: its facts, and what it is defined to return."""
    facts: Proof = json.loads(path.with_suffix(".json").read_text())
    arrays = [x.numpy() for x in inputs]

    def definition() -> list[Tensor]:
        session = _session(path)
        fed = {node.name: array for node, array in zip(session.get_inputs(), arrays, strict=True)}
        return [torch.from_numpy(output) for output in session.run(None, fed)]

    return {"proof": {**lowered.proof, **facts}, "definition": definition}


def with_definition(lowered: Lowered, path: Path, inputs: tuple[Tensor, ...]) -> Lowered:
    """The lowering of a quantized graph with the fields that this adds."""
    return replace(lowered, **described(lowered, path, inputs))


def kept_in_float(path: Path) -> list[str]:
    """The products of a quantized graph that were left as they are, by name."""
    kept: list[str] = json.loads(path.with_suffix(".json").read_text())["kept_in_float"]
    return kept


def batches(calibration: Calibration, inputs: Mapping[str, Tensor]) -> list[Feeds]:
    """The calibration in batches of the inputs' own size; Unsupported for arrays that are not like these."""
    arrays = dict(calibration.arrays)
    if len(inputs) == 1 and len(arrays) == 1:
        arrays = dict(zip(inputs, arrays.values(), strict=True))
    counts = []
    for name, example in inputs.items():
        if name not in arrays:
            raise Unsupported(f"calibration: got {', '.join(arrays)}, expected an array for input '{name}'")
        _check(name, arrays[name], example)
        counts.append(len(arrays[name]) // len(example))
    return [
        {
            name: arrays[name][k * len(example) : (k + 1) * len(example)].to(example.dtype).numpy()
            for name, example in inputs.items()
        }
        for k in range(min(counts))
    ]


def _check(name: str, array: Tensor, example: Tensor) -> None:
    got, wanted = ("x".join(map(str, x.shape)) for x in (array, example))
    if array.shape[1:] != example.shape[1:] or len(array) < len(example):
        raise Unsupported(f"calibration: got {got} for input '{name}', expected {wanted}, or more along the first axis")
    values = array.double()
    if not array.is_floating_point():  # a mask of ones is usual
        return
    if not bool(torch.isfinite(values).all()) or bool((values == values.flatten()[0]).all()):
        raise Unsupported(
            f"calibration: got one value throughout, or NaN, for '{name}', expected what the engine will see"
        )


def named(model: Any) -> None:
    """Give every node a name, by which the quantizer tells them apart. Unsupported for what it cannot take."""
    opset = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)
    if opset < LEAST_OPSET:
        raise Unsupported(
            f"quantizing: got a graph of opset {opset}, expected {LEAST_OPSET} or later, which has a scale per "
            "channel: convert it with onnx.version_converter.convert_version"
        )
    if any(node.op_type in (*INTEGER, "QuantizeLinear", "DynamicQuantizeLinear") for node in model.graph.node):
        raise Unsupported("quantizing: got a graph that is quantized already: leave out --dtypes, it runs as it is")
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"


def last_product(model: Any) -> list[str]:
    """The name of the last product where it makes a vector of each image, which stays in float; else nothing."""
    products = [node.name for node in model.graph.node if node.op_type in PRODUCTS]
    ranks = [len(value.type.tensor_type.shape.dim) for value in model.graph.output]
    return products[-1:] if ranks == [2] else []


def _quantize(path: Path, made: Path, feeds: list[Feeds], kept: list[str], dtype: str) -> None:
    from onnxruntime import quantization

    kind = quantization.QuantType.QInt8 if dtype == "int8" else quantization.QuantType.QFLOAT8E4M3FN
    methods = quantization.CalibrationMethod  # of fp8 it takes no other than this one
    method = methods.MinMax if dtype == "int8" else methods.Distribution

    class Reader(quantization.CalibrationDataReader):
        left = iter(feeds)

        def get_next(self) -> Feeds | None:
            return next(self.left, None)

    with _quietly(), contextlib.redirect_stdout(None):
        try:
            quantization.quantize_static(
                str(path), str(made), Reader(), quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=list(PRODUCTS), nodes_to_exclude=kept, per_channel=dtype == "int8",
                activation_type=kind, weight_type=kind, calibrate_method=method, extra_options=dict(SETTINGS),
            )  # fmt: skip
        except (RuntimeError, ValueError) as error:
            raise Unsupported(f"onnxruntime's quantizer: {first_line(error)}") from error


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without its advice to preprocess a graph, which would lose the names of nodes."""
    before = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.root.setLevel(before)


def refuse_float(model: Any, kept: list[str]) -> None:
    """Raise Unsupported for products, other than those kept, whose operands are not both quantized."""
    made_by = {name: node.op_type for node in model.graph.node for name in node.output}
    left = [
        node.name
        for node in model.graph.node
        if node.op_type in PRODUCTS and node.name not in kept
        and any(made_by.get(name) != "DequantizeLinear" for name in node.input[:2])
    ]  # fmt: skip
    if left:
        raise Unsupported(f"the quantizer left {len(left)} products in float: {', '.join(left[:4])}")


def agreement(before: Path, after: Path, feeds: list[Feeds]) -> float | None:
    """The share of calibration images whose largest output stays the largest; None where outputs are no classes."""
    both = [_session(path) for path in (before, after)]
    outputs = [[session.run(None, fed)[0] for fed in feeds] for session in both]
    if outputs[0][0].ndim != 2 or outputs[0][0].shape[1] < 2:
        return None
    first, second = (np.concatenate(images).argmax(axis=1) for images in outputs)
    return float((first == second).mean())


def _session(path: Path, level: str = "ORT_DISABLE_ALL", dump: Path | None = None) -> Any:
    """A session on the CPU; by default of the graph as it is written, its products in float. dump: what it executes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    if dump is not None:
        options.optimized_model_filepath = str(dump)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def in_onnxruntime(path: Path, level: str) -> Products:
    """The products of the graph that onnxruntime executes at a level of optimisation, dumped by such a session."""
    import onnx

    with tempfile.TemporaryDirectory(prefix="mixprof-") as folder:
        dump = Path(folder) / "executed.onnx"
        _session(path, level, dump)
        nodes = [node for node in onnx.load(str(dump)).graph.node if node.op_type in INTEGER | FLOAT]
    return {node.name or node.output[0]: (node.op_type, node.op_type in INTEGER) for node in nodes}


def with_float_biases(model: Any) -> Any:
    """The model itself with the biases that it dequantizes as floats, equal in value: TensorRT takes no int32 there."""
    from onnx import TensorProto, numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in [node for node in model.graph.node if node.op_type == "DequantizeLinear"]:
        bias = constants.get(node.input[0])
        if bias is not None and bias.data_type == TensorProto.INT32:
            values = numpy_helper.to_array(bias) * numpy_helper.to_array(constants[node.input[1]])
            model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), node.output[0]))
            model.graph.node.remove(node)
    return model


def executed(products: Products, kept: list[str], name: str, dtype: str = "int8") -> Proof:
    """What of an executed graph's products is in integers, or in fp8.

    Unsupported where none is: that would be a float engine under another name.
    """
    integer = Counter(kind for kind, is_integer in products.values() if is_integer)
    names = {*kept, *(name.removeprefix("node_") for name in kept)}  # OpenVINO may name a node by what it returns
    others = [node for node, (_, is_integer) in products.items() if not is_integer and node not in names]
    if not integer:
        kind = "integers" if dtype == "int8" else dtype
        raise Unsupported(
            f"lowering '{name}': no product runs in {kind}, so this would be float under the name {dtype}"
        )
    return {"integer_products" if dtype == "int8" else "fp8_products": dict(integer), "float_products": others}
