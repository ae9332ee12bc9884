"""ONNX files: read with the weights that lie beside them, and written to where a runtime loads them.

Up to 2 GiB a model is one protobuf, weights and all. Above, its large weights stay in files: of a hub's cache, too,
whose names are links.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mixprof.data.cache import write as write_whole
from mixprof.data.errors import Unsupported, first_line
from mixprof.lowerings.onnx_graph import graphs, skeleton

MOST_BYTES = 2**31 - 1  # of a serialized ONNX model
SMALL_BYTES = 1 << 16  # of a tensor that may be a shape, and is always read
CHUNK_BYTES = 1 << 24


def read(path: Path) -> tuple[Any, str]:
    """The ModelProto of a file, with the weights beside it as far as one protobuf holds them, and a hash of all.

    Unsupported, on one line, for a file that is missing, damaged, no ONNX model, or whose weights lie elsewhere.
    """
    import onnx
    from google.protobuf.message import DecodeError

    content = read_bytes(path)
    try:
        model = onnx.load_from_string(content)
        hashed = hashlib.sha256(content)
        beside = {location: _beside(path, location) for location in dict.fromkeys(map(_location, _external(model)))}
        for location, file in beside.items():
            _hash(path, location, file, hashed)
        _load(path, model, beside, len(content))
        _check(model)
    except (DecodeError, onnx.checker.ValidationError, ValueError) as error:
        reason = first_line(error)
        raise Unsupported(f"{path}: got no ONNX model that can be read ({reason}): export it again") from error
    return model, hashed.hexdigest()


def read_bytes(path: Path) -> bytes:
    """A file's content; Unsupported, on one line, when there is none to read."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Unsupported(f"{path}: got no file that can be read ({error.strerror}): check its name") from error
    if not content:
        raise Unsupported(f"{path}: got an empty file: export it again")
    return content


def write(model: Any, path: Path, beside: Path, key: str) -> None:
    """Write a model to `path`. Weights that stayed in files beside `beside` are copied to its folder, once a `key`."""
    external = list(_external(model))
    names: dict[str, str] = {}
    for location in dict.fromkeys(map(_location, external)):
        names[location] = f"{key[:32]}.{len(names)}.weights"
        copy = path.parent / names[location]
        if not copy.exists():
            temporary = copy.with_name(f"{os.getpid()}.{copy.name}")
            shutil.copyfile(_beside(beside, location), temporary)
            os.replace(temporary, copy)
    for tensor in external:
        for entry in tensor.external_data:
            entry.value = names[entry.value] if entry.key == "location" else entry.value
    write_whole(path, model.SerializeToString(deterministic=True))


def _beside(path: Path, location: str) -> Path:
    """The file that a location names: in the model's folder, or a link in it to where the model itself really lies."""
    folder, own = path.parent.resolve(), path.resolve().parent
    place = PurePosixPath(location)
    weights = (folder / location).resolve()
    inside = weights.is_relative_to(folder) or weights.is_relative_to(own)
    if not inside or place.is_absolute() or ".." in place.parts:
        raise Unsupported(f"{path}: got weights in '{location}', expected them in the model's own folder")
    return weights


def _hash(path: Path, location: str, weights: Path, hashed: Any) -> None:
    try:
        with weights.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                hashed.update(chunk)
    except OSError as error:
        raise Unsupported(
            f"{path}: its weights lie in '{location}' beside it, which cannot be read ({error.strerror}): "
            "keep the two files together"
        ) from error


def _load(path: Path, model: Any, beside: dict[str, Path], graph_bytes: int) -> None:
    """Read external tensors into the model: all of them where one protobuf holds them, else the small ones."""
    sizes = [(tensor, *_extent(tensor, beside[_location(tensor)])) for tensor in _external(model)]
    whole = graph_bytes + sum(length for *_, length in sizes) <= MOST_BYTES
    for tensor, start, length in sizes:
        if not whole and length > SMALL_BYTES:
            continue
        with beside[_location(tensor)].open("rb") as file:
            file.seek(start)
            tensor.raw_data = file.read(length)
        if len(tensor.raw_data) != length:
            raise Unsupported(
                f"{path}: got weights '{tensor.name}' beyond the end of '{_location(tensor)}', expected a whole file: "
                "copy it again"
            )
        tensor.ClearField("data_location")
        del tensor.external_data[:]


def _extent(tensor: Any, file: Path) -> tuple[int, int]:
    """Where an external tensor begins in its file, and its length, in bytes."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    start = int(entries.get("offset", 0))
    return start, int(entries.get("length", file.stat().st_size - start))


def _external(model: Any) -> Iterator[Any]:
    """The tensors that lie in other files: initializers and attributes, at any depth."""
    for graph in graphs(model):
        attributes = [attribute for node in graph.node for attribute in node.attribute]
        inner = [tensor for one in attributes for tensor in (*([one.t] if one.HasField("t") else []), *one.tensors)]
        for tensor in (*getattr(graph, "initializer", ()), *inner):
            if tensor.external_data:
                yield tensor


def _location(tensor: Any) -> str:
    return next((str(entry.value) for entry in tensor.external_data if entry.key == "location"), "")


def _check(model: Any) -> None:
    """Run ONNX's own check, which also insists on a shape for every output: runtimes find these themselves."""
    import onnx

    model = skeleton(model)
    for value in model.graph.output:
        kind = value.type.tensor_type
        if value.type.HasField("tensor_type") and not kind.HasField("shape"):
            kind.shape.SetInParent()
    onnx.checker.check_model(model)
