"""The layers of an engine, from the text that the builder logs and the engine inspector prints: one schema for both."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from mixprof.lowerings import Proof

BYTES = {"Float": 4, "Half": 2, "BFloat16": 2, "Int64": 8, "Int32": 4, "Int8": 1, "UInt8": 1, "Bool": 1, "FP8": 1}
NAMES = {"int8": "Int8", "fp8": "FP8"}  # in an engine's layers
PRODUCTS = {"Conv", "ConvTranspose", "MatMul", "Gemm", "Einsum", "Attention"}  # ONNX operators that multiply matrices
SECTIONS = ("Inputs", "Constants", "Outputs")
TENSOR = re.compile(
    r"\{ Name: (?P<name>.*?), (?:Location: \w+, )?Dimensions: \[(?P<shape>[\d,]*)\].*?"
    r"(?:Format/)?Datatype: (?P<dtype>\w+)"
)
MEMORY = {
    "activation_bytes": "Total Activation Memory",
    "scratch_bytes": "Max Scratch Memory",
    "weights_bytes": "Total Weights Memory",
}


@dataclass(frozen=True)
class Tensor:
    """A tensor that a layer reads or writes."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # TensorRT's name: "Float", "Half", "BFloat16", …

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * BYTES.get(self.dtype, 4)


@dataclass(frozen=True)
class Layer:
    """One kernel of an engine."""

    name: str
    kind: str
    inputs: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    nodes: tuple[str, ...]  # of the ONNX graph that it computes

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Element types of what it reads and writes; a product's scalar factors are float32 in any precision."""
        constants = [tensor for tensor in self.constants if prod(tensor.shape) > 1]
        tensors = (*self.inputs, *constants, *self.outputs)
        return tuple(sorted({tensor.dtype for tensor in tensors}))


def layers_text(lines: Iterable[tuple[str, str]]) -> str:
    """The builder's message that lists the layers; "" where it printed none."""
    return next((text for _, text in lines if text.lstrip().startswith("Layers:")), "")


def parse_layers(text: str) -> list[Layer]:
    """The layers of an engine, in order, from the inspector's text, one line a layer."""
    body = text.split("I/O Tensors:")[0].split("Bindings:")[0]
    return [_layer(line) for line in body.splitlines() if line.startswith("Name: ") and ", LayerType: " in line]


def _layer(line: str) -> Layer:
    name, rest = line.removeprefix("Name: ").split(", LayerType: ", 1)
    tensors = {part: _tensors(rest, part) for part in SECTIONS}
    metadata = rest.rsplit("Metadata:", 1)[1] if "Metadata:" in rest else ""
    nodes = tuple(re.findall(r"\[ONNX Layer: ([^\]]+)\]", metadata))
    return Layer(name, rest.split(",", 1)[0], tensors["Inputs"], tensors["Constants"], tensors["Outputs"], nodes)


def _tensors(text: str, section: str) -> tuple[Tensor, ...]:
    start = text.find(f", {section}: [")
    if start < 0:
        return ()
    ends = [text.find(f"], {after}: ", start) for after in (*SECTIONS, "ParameterType", "TacticName", "Metadata")]
    body = text[start : min((end for end in ends if end >= 0), default=len(text))]
    return tuple(
        Tensor(match["name"], tuple(map(int, filter(None, match["shape"].split(",")))), match["dtype"])
        for match in TENSOR.finditer(body)
    )


def memory_of(lines: Iterable[tuple[str, str]]) -> dict[str, int | None]:
    """Bytes of activations, of the largest layer's scratch and of weights, as the builder logs them."""
    text = "\n".join(line for _, line in lines)
    matches = {name: re.search(rf"{words}: (\d+) bytes", text) for name, words in MEMORY.items()}
    return {name: int(match[1]) if match else None for name, match in matches.items()}


def summarize(layers: Sequence[Layer], operators: Mapping[str, str], outputs: Iterable[str]) -> Proof:
    """The part of a record that speaks of an engine's layers.

    operators: ONNX node name -> operator; outputs: names of the engine's own outputs. `intermediate_bytes` is what
    layers write for other layers; an attention is fused when one kernel holds its softmax and both its products.
    """
    own = set(outputs)
    used = [[operators[node] for node in layer.nodes if node in operators] for layer in layers]
    products = [bool(PRODUCTS & set(operators_used)) for operators_used in used]
    fused = [
        "Softmax" in operators_used and sum(op in PRODUCTS for op in operators_used) >= 2 for operators_used in used
    ]
    return {
        "kernels": len(layers),
        "attentions": sum(op == "Softmax" for op in operators.values()),
        "fused_attentions": [list(layer.nodes) for layer, one in zip(layers, fused, strict=True) if one],
        "layer_dtypes": dict(Counter("+".join(layer.dtypes) for layer in layers)),
        "product_dtypes": sorted({d for layer, one in zip(layers, products, strict=True) if one for d in layer.dtypes}),
        "intermediate_bytes": sum(t.nbytes for layer in layers for t in layer.outputs if t.name not in own),
        "layers": [
            {"name": layer.name, "kind": layer.kind, "dtypes": list(layer.dtypes), "nodes": list(layer.nodes)}
            for layer in layers
        ],
    }


def quantized_products(
    layers: Sequence[Mapping[str, Any]], operators: Mapping[str, str], dtype: str
) -> dict[str, tuple[str, bool]]:
    """ONNX node of a product -> the kind of the layer that computes it, and whether that reads or writes the dtype.

    layers: those of `summarize`. A generated kernel ("kgen") also quantizes beside a product: it counts alone only.
    """
    found: dict[str, list[Mapping[str, Any]]] = {}
    for layer in layers:
        for node in layer["nodes"]:
            if operators.get(node) in PRODUCTS:
                found.setdefault(node, []).append(layer)
    computing = {node: [one for one in of if one["kind"] != "kgen"] or of for node, of in found.items()}
    return {node: (of[0]["kind"], any(NAMES[dtype] in one["dtypes"] for one in of)) for node, of in computing.items()}
