"""What OpenVINO really executes, from the runtime model of a compiled one: nodes, kernels, precisions, fusions."""

from __future__ import annotations

from collections import Counter
from typing import Any

from mixprof.lowerings import Proof
from mixprof.lowerings.onnx_graph import Graph

# Layer types that multiply matrices or kernels.
PRODUCTS = {"Convolution", "Deconvolution", "FullyConnected", "MatMul", "Gemm", "ScaledDotProductAttention"}
NO_KERNELS = {"Input", "Output", "Const", "Parameter", "Result", "Constant"}
DTYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16", "i8": "int8", "u8": "uint8"}


def summarize(runtime: Any, graph: Graph) -> Proof:
    """The part of a record that speaks of executed nodes: each with its type, kernel, precision and ONNX nodes."""
    layers = [_layer(node) for node in runtime.get_ordered_ops()]
    layers = [layer for layer in layers if layer["kind"] not in NO_KERNELS]
    products = [layer for layer in layers if layer["kind"] in PRODUCTS]
    return {
        "kernels": len(layers),
        "layer_kinds": dict(Counter(layer["kind"] for layer in layers)),
        "layer_dtypes": dict(Counter(layer["dtype"] for layer in layers)),
        "product_dtypes": sorted({layer["dtype"] for layer in products}),
        "products": dict(Counter(f"{layer['kernel']}" for layer in products)),
        "fused": sum(max(0, len(layer["nodes"]) - 1) for layer in layers),
        "layers": layers,
        "roles": {layer["name"]: graph.role_of(layer["nodes"]) for layer in layers},
    }


def _layer(node: Any) -> dict[str, Any]:
    facts = node.get_rt_info()

    def fact(name: str) -> str:
        return str(facts[name].value if hasattr(facts[name], "value") else facts[name]) if name in facts else ""

    precision = fact("runtimePrecision")
    return {
        "name": node.get_friendly_name(),
        "kind": fact("layerType"),
        "kernel": fact("primitiveType"),
        "dtype": DTYPES.get(precision, precision),
        "nodes": [name for name in fact("originalLayersNames").split(",") if name],
    }
