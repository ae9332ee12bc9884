"""ONNX graphs: their inputs, types and roles, and their shapes pinned. Files of them are read in `onnx_files`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from mixprof.data.errors import Unsupported, first_line
from mixprof.lowerings.roles import role_of_node

FLOATS = {1: "float32", 10: "float16", 16: "bfloat16", 11: "float64"}  # onnx.TensorProto's numbers
TYPES = {**FLOATS, 2: "uint8", 3: "int8", 5: "int16", 6: "int32", 7: "int64", 9: "bool"}
SMALL = 1024  # elements of a tensor that may be a shape
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


def graphs(model: Any) -> Iterator[Any]:
    """The graph, its subgraphs at any depth, and the model's functions."""
    waiting = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                waiting += [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


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
    """The model itself, with the shapes that follow from those of its inputs; Unsupported where these cannot be."""
    import onnx.shape_inference

    try:
        known = onnx.shape_inference.infer_shapes(skeleton(model), data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise Unsupported(f"onnx: no shapes follow from those of the inputs: {first_line(error)}") from error
    for part in ("value_info", "output"):
        del getattr(model.graph, part)[:]
        getattr(model.graph, part).extend(getattr(known.graph, part))
    return model


def skeleton(model: Any) -> Any:
    """A copy whose large weights are inputs: all that checks and shape inference look at, whatever the weights take."""
    from onnx.helper import make_tensor_value_info

    light = _without(model, "graph")
    light.graph.CopyFrom(_without(model.graph, "initializer"))
    listed = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        if prod(tensor.dims) <= SMALL and not tensor.external_data:
            light.graph.initializer.append(tensor)
        elif tensor.name not in listed:
            light.graph.input.append(make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return light


def with_weights(light: Any, model: Any) -> Any:
    """A skeleton, whatever was done to its nodes, with the weights of the model that it was made of."""
    kept = {tensor.name for tensor in light.graph.initializer}
    missing = [tensor for tensor in model.graph.initializer if tensor.name not in kept]
    names = {tensor.name for tensor in missing} - {value.name for value in model.graph.input}
    inputs = [value for value in light.graph.input if value.name not in names]
    whole = _without(light, "graph")
    whole.graph.CopyFrom(_without(light.graph, "input"))
    whole.graph.input.extend(inputs)
    whole.graph.initializer.extend(missing)
    return whole


def _without(message: Any, skipped: str) -> Any:
    """A copy of a protobuf message but for one field, which may be large."""
    copy = type(message)()
    for field, value in message.ListFields():
        if field.name == skipped:
            continue
        if hasattr(value, "extend"):
            getattr(copy, field.name).extend(value)
        elif field.message_type is not None:
            getattr(copy, field.name).CopyFrom(value)
        else:
            setattr(copy, field.name, value)
    return copy


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
