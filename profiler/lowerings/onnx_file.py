"""An ONNX file as a model that runs by itself: weights from beside it, fixed input shapes, a name for every node."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

from mixprof.data.errors import Unsupported

MOST_BYTES = 2**31 - 1  # of a serialized ONNX model
FLOATS = {1: "float32", 10: "float16", 16: "bfloat16", 11: "float64"}  # onnx.TensorProto's numbers
TYPES = {**FLOATS, 2: "uint8", 3: "int8", 5: "int16", 6: "int32", 7: "int64", 9: "bool"}


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
        said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise Unsupported(f"{path}: got no ONNX model that can be read ({said}): export it again") from error
    return model, hashed.hexdigest()


def _check(model: Any) -> None:
    """ONNX's own check, which also insists on a shape for every output: runtimes do not, and find it themselves."""
    import onnx

    kinds = [each.type.tensor_type for each in model.graph.output if each.type.HasField("tensor_type")]
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
    """What lies beside a model, in its folder and not elsewhere."""
    folder = path.parent.resolve()
    found = (folder / location).resolve()
    if not found.is_relative_to(folder):
        raise Unsupported(f"{path}: got weights in '{location}', expected them in the model's own folder")
    try:
        return found.read_bytes()
    except OSError as error:
        raise Unsupported(
            f"{path}: its weights lie in '{location}' beside it, which cannot be read ({error.strerror}): "
            "keep the two files together"
        ) from error


def _locations(model: Any) -> Iterator[str]:
    for tensor in tensors(model):
        for entry in tensor.external_data:
            if entry.key == "location":
                yield entry.value


def tensors(model: Any) -> Iterator[Any]:
    """Every constant of a model: initializers and tensors in attributes, those of subgraphs and functions too."""
    for graph in graphs(model):
        yield from getattr(graph, "initializer", ())
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


def graphs(model: Any) -> Iterator[Any]:
    """The graph, its subgraphs at any depth, and the model's functions."""
    waiting = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                waiting += [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def inputs_of(model: Any, path: Path) -> dict[str, tuple[str, tuple[int | str | None, ...]]]:
    """Input name -> element type and sizes, in the graph's order; Unsupported for what is no tensor."""
    weights = {each.name for each in model.graph.initializer}
    found = {}
    for each in model.graph.input:
        if each.name in weights:
            continue
        if not each.type.HasField("tensor_type") or not each.type.tensor_type.HasField("shape"):
            raise Unsupported(f"{path}: got input '{each.name}' that is no tensor of a known rank, expected one")
        number = each.type.tensor_type.elem_type
        if number not in TYPES:
            raise Unsupported(
                f"{path}: got element type {number} of input '{each.name}', expected {', '.join(TYPES.values())}"
            )
        dims = each.type.tensor_type.shape.dim
        # Exporters also write a free axis as -1 or 0.
        sizes = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in dims]
        free = tuple(None if isinstance(size, int) and size < 1 else size for size in sizes)
        found[each.name] = (TYPES[number], free)
    if not found:
        raise Unsupported(f"{path}: got a graph without inputs, expected at least one")
    return found


def weights_bytes(model: Any) -> int:
    """Bytes of all initializers."""
    from onnx.helper import tensor_dtype_to_np_dtype

    weights = [each for graph in graphs(model) for each in getattr(graph, "initializer", ())]
    return sum(prod(each.dims) * int(tensor_dtype_to_np_dtype(each.data_type).itemsize) for each in weights)


def float_elements(model: Any) -> Counter[str]:
    """How many elements the float initializers have, by their type. Their sum is the number of parameters."""
    found: Counter[str] = Counter()
    for graph in graphs(model):
        for each in getattr(graph, "initializer", ()):
            if each.data_type in FLOATS:
                found[FLOATS[each.data_type]] += prod(each.dims)
    return found


def own_dtype(model: Any, path: Path) -> str:
    """The element type that most of the weights have; without weights, that of the first float input or output."""
    counted = float_elements(model)
    values = [*model.graph.input, *model.graph.output]
    types = [FLOATS.get(each.type.tensor_type.elem_type) for each in values]
    found = max(counted, key=lambda name: counted[name]) if counted else next(filter(None, types), None)
    if found not in ("float32", "float16", "bfloat16"):
        raise Unsupported(
            f"{path}: got a graph in {found or 'integers alone'}, expected one in float32, float16 or bfloat16"
        )
    return str(found)


def pinned(model: Any, shapes: Mapping[str, tuple[int, ...]]) -> Any:
    """A copy with these input shapes, and all others that follow from them; a name of its own for each node.

    What exporters noted of shapes in between is dropped: it holds the names of axes that are fixed now.
    """
    model = named(model)
    if all(_is_fixed(each, shapes) for each in model.graph.input):
        return model
    for each in model.graph.input:
        if each.name in shapes:
            for dim, size in zip(each.type.tensor_type.shape.dim, shapes[each.name], strict=True):
                dim.dim_value = size
    del model.graph.value_info[:]
    for each in model.graph.output:
        for dim in each.type.tensor_type.shape.dim:
            dim.Clear()
    return inferred(model)


def inferred(model: Any) -> Any:
    """The model with the shapes that follow from those of its inputs; Unsupported where these cannot be."""
    import onnx.shape_inference

    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        raise Unsupported(f"onnx: no shapes follow from those of the inputs: {said}") from error


def _is_fixed(value: Any, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    sizes = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
    return value.name not in shapes or sizes == shapes[value.name]


def named(model: Any) -> Any:
    """A copy in which every node of the graph has a name of its own: proofs tell nodes apart by it."""
    found = type(model)()
    found.CopyFrom(model)
    taken = {node.name for node in found.graph.node}
    seen = {""}
    for index, node in enumerate(found.graph.node):
        if node.name in seen:
            node.name = _unused(f"{node.name or node.op_type}_{index}", taken)
        seen.add(node.name)
        taken.add(node.name)
    return found


def _unused(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name
