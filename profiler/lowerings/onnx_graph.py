"""The one reader of ONNX: a file with the weights beside it, its inputs, types and roles, its shapes pinned."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from mixprof.data.errors import Unsupported, first_line
from mixprof.lowerings.roles import role_of_node

MOST_BYTES = 2**31 - 1  # of a serialized ONNX model
FLOATS = {1: "float32", 10: "float16", 16: "bfloat16", 11: "float64"}  # onnx.TensorProto's numbers
TYPES = {**FLOATS, 2: "uint8", 3: "int8", 5: "int16", 6: "int32", 7: "int64", 9: "bool"}
Sizes = tuple[int | str | None, ...]  # a name or None for an axis that is not fixed


@dataclass(frozen=True)
class Graph:
    """An ONNX graph without its weights."""

    inputs: dict[str, Sizes]
    outputs: tuple[str, ...]
    operators: dict[str, str]  # node name -> operator
    roles: dict[str, str]  # node name -> one of roles.ROLES

    @classmethod
    def read(cls, content: bytes) -> Graph:
        """Read a serialized ModelProto; Unsupported when it is none."""
        import onnx
        from google.protobuf.message import DecodeError

        try:
            model = onnx.load_from_string(content)
        except DecodeError as error:
            raise Unsupported(f"got a file that is no ONNX model ({error}), expected one that onnx can load") from error
        return cls(
            inputs={value.name: sizes_of(value) for value in _without_weights(model)},
            outputs=tuple(value.name for value in model.graph.output),
            operators={node.name: node.op_type for node in model.graph.node},
            roles={node.name: role_of_node(node) for node in model.graph.node},
        )

    def role_of(self, nodes: Sequence[str]) -> str:
        """The role of most of these nodes that compute, reshapes aside: of one layer of an engine."""
        known = [self.roles[node] for node in nodes if node in self.roles]
        computing = [role for role in known if role != "reshape"] or known
        return max(dict.fromkeys(computing), key=computing.count, default="other")


def read(path: Path) -> tuple[Any, str]:
    """The ModelProto of a file, with the weights that lie beside it, and the hash of all its content.

    Unsupported, on one line, for a file that is missing, damaged, no ONNX model, or larger than ONNX can hold in one.
    """
    import onnx
    from google.protobuf.message import DecodeError

    content = read_bytes(path)
    try:
        model = onnx.load_from_string(content)
        beside = list(dict.fromkeys(_locations(model)))
        hashed = hashlib.sha256(content)
        for location in beside:
            hashed.update(_beside(path, location))
        if beside:
            onnx.load_external_data_for_model(model, str(path.parent))
        if model.ByteSize() > MOST_BYTES:
            raise Unsupported(f"{path}: got {model.ByteSize():,} bytes of graph and weights, expected at most 2 GiB")
        _check(model)
    except (DecodeError, onnx.checker.ValidationError, ValueError) as error:
        reason = first_line(error)
        raise Unsupported(f"{path}: got no ONNX model that can be read ({reason}): export it again") from error
    return model, hashed.hexdigest()


def _check(model: Any) -> None:
    """Run ONNX's own check, which also insists on a shape for every output: runtimes find these themselves."""
    import onnx

    kinds = [value.type.tensor_type for value in model.graph.output if value.type.HasField("tensor_type")]
    shapeless = [kind for kind in kinds if not kind.HasField("shape")]
    for kind in shapeless:
        kind.shape.SetInParent()
    try:
        onnx.checker.check_model(model)
    finally:
        for kind in shapeless:
            kind.ClearField("shape")


def read_bytes(path: Path) -> bytes:
    """A file's content; Unsupported, on one line, when there is none to read."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Unsupported(f"{path}: got no file that can be read ({error.strerror}): check its name") from error
    if not content:
        raise Unsupported(f"{path}: got an empty file: export it again")
    return content


def _beside(path: Path, location: str) -> bytes:
    """The content of a file beside a model, in its folder and not elsewhere."""
    folder = path.parent.resolve()
    weights = (folder / location).resolve()
    if not weights.is_relative_to(folder):
        raise Unsupported(f"{path}: got weights in '{location}', expected them in the model's own folder")
    try:
        return weights.read_bytes()
    except OSError as error:
        raise Unsupported(
            f"{path}: its weights lie in '{location}' beside it, which cannot be read ({error.strerror}): "
            "keep the two files together"
        ) from error


def _locations(model: Any) -> Iterator[str]:
    """The names of the files that hold weights: of initializers and of tensors in attributes, at any depth."""
    for graph in graphs(model):
        attributes = [attribute for node in graph.node for attribute in node.attribute]
        inner = [tensor for one in attributes for tensor in (*([one.t] if one.HasField("t") else []), *one.tensors)]
        for tensor in (*getattr(graph, "initializer", ()), *inner):
            yield from (entry.value for entry in tensor.external_data if entry.key == "location")


def graphs(model: Any) -> Iterator[Any]:
    """The graph, its subgraphs at any depth, and the model's functions."""
    waiting = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                waiting += [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _initializers(model: Any) -> list[Any]:
    return [tensor for graph in graphs(model) for tensor in getattr(graph, "initializer", ())]


def _without_weights(model: Any) -> list[Any]:
    """The graph's inputs that are not also initializers, as old exporters write them."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def sizes_of(value: Any) -> Sizes:
    """The sizes of an input or output. Exporters also write a free axis as -1 or 0."""
    dims = value.type.tensor_type.shape.dim
    sizes = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in dims]
    return tuple(None if isinstance(size, int) and size < 1 else size for size in sizes)


def shapes_of(graph: Any) -> dict[str, tuple[int, ...]]:
    """Every value of a GraphProto whose shape is known to the last axis."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim):
            shapes[value.name] = tuple(dim.dim_value for dim in kind.shape.dim)
    return shapes


def inputs_of(model: Any, path: Path) -> dict[str, tuple[str, Sizes]]:
    """Input name -> element type and sizes, in the graph's order; Unsupported for what is no tensor."""
    inputs = {}
    for value in _without_weights(model):
        if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
            raise Unsupported(f"{path}: got input '{value.name}' that is no tensor of a known rank, expected one")
        number = value.type.tensor_type.elem_type
        if number not in TYPES:
            raise Unsupported(
                f"{path}: got element type {number} of input '{value.name}', expected {', '.join(TYPES.values())}"
            )
        inputs[value.name] = (TYPES[number], sizes_of(value))
    if not inputs:
        raise Unsupported(f"{path}: got a graph without inputs, expected at least one")
    return inputs


def weights_bytes(model: Any) -> int:
    """Bytes of all initializers."""
    from onnx.helper import tensor_dtype_to_np_dtype

    weights = _initializers(model)
    return sum(prod(tensor.dims) * int(tensor_dtype_to_np_dtype(tensor.data_type).itemsize) for tensor in weights)


def float_elements(model: Any) -> Counter[str]:
    """How many elements the float initializers have, by their type. Their sum is the number of parameters."""
    elements: Counter[str] = Counter()
    for tensor in _initializers(model):
        if tensor.data_type in FLOATS:
            elements[FLOATS[tensor.data_type]] += prod(tensor.dims)
    return elements


def own_dtype(model: Any, path: Path) -> str:
    """The element type that most of the weights have; without weights, that of the first float input or output."""
    counted = float_elements(model)
    values = [*model.graph.input, *model.graph.output]
    types = [FLOATS.get(value.type.tensor_type.elem_type) for value in values]
    dtype = max(counted, key=lambda name: counted[name]) if counted else next(filter(None, types), None)
    if dtype not in ("float32", "float16", "bfloat16"):
        raise Unsupported(
            f"{path}: got a graph in {dtype or 'integers alone'}, expected one in float32, float16 or bfloat16"
        )
    return str(dtype)


def pinned(model: Any, shapes: Mapping[str, tuple[int, ...]]) -> Any:
    """A copy with these input shapes, and all others that follow from them; a name of its own for each node.

    What exporters noted of shapes in between is dropped: it holds the names of axes that are fixed now.
    """
    model = named(model)
    if all(sizes_of(value) == shapes.get(value.name, sizes_of(value)) for value in model.graph.input):
        return model
    for value in model.graph.input:
        if value.name in shapes:
            for dim, size in zip(value.type.tensor_type.shape.dim, shapes[value.name], strict=True):
                dim.dim_value = size
    del model.graph.value_info[:]
    for value in model.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            dim.Clear()
    return inferred(model)


def inferred(model: Any) -> Any:
    """The model with the shapes that follow from those of its inputs; Unsupported where these cannot be."""
    import onnx.shape_inference

    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise Unsupported(f"onnx: no shapes follow from those of the inputs: {first_line(error)}") from error


def named(model: Any) -> Any:
    """A copy in which every node of the graph has a name of its own: proofs tell nodes apart by it."""
    copy = type(model)()
    copy.CopyFrom(model)
    taken = {node.name for node in copy.graph.node}
    used = {""}
    for index, node in enumerate(copy.graph.node):
        if node.name in used:
            node.name = _unused(f"{node.name or node.op_type}_{index}", taken)
        used.add(node.name)
        taken.add(node.name)
    return copy


def _unused(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name
