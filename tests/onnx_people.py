"""ONNX files as people export, quantize, optimise and store them: each maker writes one and says what is right for it.

A maker takes the folder that it may write to. Parameters are weights whatever they are stored as; scales, zero points
and shapes are none.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from onnx_bodies import either, local_function, loop, lstm, recurrent, scan
from onnx_makers import BOOL, BYTES, FLOAT, INT64, File, Maker, Shape, array, node, save, weights
from onnx_quantized import (
    dynamic_quantization,
    four_bits,
    fused_attention,
    fused_convolution,
    fused_products,
    quantized,
    quantized_operators,
)


def shape_arithmetic(folder: Path, free: bool = True) -> File:
    """(b, n, 8) is reshaped to (b, n/2, 16), sizes computed in the graph, and multiplied by (16, 8)."""
    nodes = [
        node("Shape", "x", "sizes"), node("Gather", "sizes second", "n"), node("Div", "n two", "half"),
        node("Concat", "rest half wide", "target", axis=0), node("Reshape", "x target", "y"),
        node("MatMul", "y w", "z"),
    ]  # fmt: skip
    constants = [weights("w", 16, 8), array("second", [1]), array("two", [2]), array("rest", [-1]), array("wide", [16])]
    sizes: Shape = ["b", "n", 8] if free else [4, 16, 8]
    path = save(folder / "shapes.onnx", nodes, {"x": (FLOAT, sizes)}, {"z": (FLOAT, None)}, constants)
    return File(path, 128, 4096, 4, (1, 16), ("--shape", "x:4x16x8") if free else ())


def fixed_shape_arithmetic(folder: Path) -> File:
    return shape_arithmetic(folder, free=False)


def reshape_by_values(folder: Path) -> File:
    """Rows that are positive, found with NonZero, and a product of these: how many only a run can tell.

    Its input holds a constant mask, so that half of its 16 rows are kept whatever is fed.
    """
    nodes = [
        node("NonZero", "mask", "where"), node("Squeeze", "where zero", "rows"), node("Gather", "x rows", "kept"),
        node("MatMul", "kept w", "y"),
    ]  # fmt: skip
    constants = [weights("w", 8, 6), array("zero", [0]), array("mask", [1, 0] * 8, np.float32)]
    path = save(folder / "rows.onnx", nodes, {"x": (FLOAT, [16, 8])}, {"y": (FLOAT, None)}, constants)
    return File(path, 8 * 6 + 16, 8 * 8 * 6, 16)


def constant_nodes(folder: Path) -> File:
    """A convolution whose weight is the output of a Constant node, as old exporters wrote it."""
    nodes = [node("Constant", "", "w", value=weights("w", 8, 3, 3, 3)), node("Conv", "x w", "y", pads=[1] * 4)]
    path = save(folder / "constants.onnx", nodes, {"x": (FLOAT, [1, 3, 8, 8])}, {"y": (FLOAT, [1, 8, 8, 8])})
    return File(path, 216, 64 * 216, resolution=(8, 8))


def constant_floats(folder: Path) -> File:
    """Weights as a Constant's list of floats, and one that an Identity hands on to two products."""
    floats = node("Constant", "", "w", value_floats=[0.5, -1.0, 2.0, 3.0, 4.0, 5.0])
    nodes = [
        floats, node("Identity", "w", "same"), node("Mul", "x same", "a"), node("MatMul", "a v", "b"),
        node("MatMul", "b v", "y"),
    ]  # fmt: skip
    path = save(
        folder / "floats.onnx", nodes, {"x": (FLOAT, [4, 6])}, {"y": (FLOAT, [4, 6])}, [weights("v", 6, 6)]
    )  # fmt: skip
    return File(path, 6 + 36, 2 * 4 * 36, 4)


def no_batch(folder: Path) -> File:
    """A picture without a batch axis, 3 x h x w, as detectors take it."""
    nodes = [node("Unsqueeze", "image first", "x"), node("Conv", "x w", "y", pads=[1] * 4, strides=[2, 2])]
    constants = [weights("w", 4, 3, 3, 3), array("first", [0])]
    path = save(folder / "picture.onnx", nodes, {"image": (FLOAT, [3, "h", "w"])}, {"y": (FLOAT, None)}, constants)
    return File(path, 108, 400 * 667 * 108, 1, (800, 1333), ("--shape", "image:3x800x1333"))


def bytes_last(folder: Path) -> File:
    """Bytes (N, H, W, 3) as a camera delivers them."""
    nodes = [
        node("Cast", "frame", "f", to=FLOAT), node("Transpose", "f", "t", perm=[0, 3, 1, 2]),
        node("Conv", "t w", "y", pads=[1] * 4),
    ]  # fmt: skip
    path = save(
        folder / "bytes.onnx", nodes, {"frame": (BYTES, ["n", "h", "w", 3])}, {"y": (FLOAT, None)},
        [weights("w", 4, 3, 3, 3)],
    )  # fmt: skip
    return File(path, 108, 2 * 12 * 20 * 108, 2, (12, 20), ("--shape", "frame:2x12x20x3"))


def integers_out(folder: Path) -> File:
    """Nothing but indices and truth values: the largest class, the three largest, and which are positive."""
    nodes = [
        node("Gemm", "x w", "s"), node("ArgMax", "s", "best", axis=1, keepdims=0),
        node("TopK", "s three", "top order", axis=1), node("Greater", "s nought", "positive"),
    ]  # fmt: skip
    constants = [weights("w", 8, 6), array("three", [3]), array("nought", 0, np.float32)]
    returned = {"best": (INT64, [4]), "order": (INT64, [4, 3]), "positive": (BOOL, [4, 6])}
    path = save(folder / "indices.onnx", nodes, {"x": (FLOAT, [4, 8])}, returned, constants)
    return File(path, 48 + 1, 4 * 48, 4)


def external(folder: Path, location: str, values: NDArray[np.float32]) -> Path:
    """A model, (2, rows) by (rows, columns), whose weights are said to lie at `location`."""
    tensor = TensorProto(name="w", data_type=FLOAT, dims=values.shape, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    rows, columns = values.shape
    return save(
        folder / "model.onnx", [node("MatMul", "x w", "y")], {"x": (FLOAT, [2, rows])}, {"y": (FLOAT, [2, columns])},
        [tensor],
    )  # fmt: skip


def hub_cache(folder: Path) -> File:
    """The cache of a hub: the snapshot's names are links to blobs that are named by their content."""
    blobs, snapshot = folder / "models--me--net" / "blobs", folder / "models--me--net" / "snapshots" / "0123abcd"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    values = np.arange(15, dtype=np.float32).reshape(5, 3)
    written = external(blobs, "model.onnx_data", values)
    contents = {"model.onnx": written.read_bytes(), "model.onnx_data": values.tobytes()}
    written.unlink()
    for name, content in contents.items():
        blob = hashlib.sha256(content).hexdigest()
        (blobs / blob).write_bytes(content)
        (snapshot / name).symlink_to(Path("../../blobs") / blob)
    return File(snapshot / "model.onnx", 15, 30, 2)


def weights_elsewhere(folder: Path) -> File:
    """Weights that are said to lie in the folder above: never read."""
    inner = folder / "inner"
    inner.mkdir()
    values = np.ones((5, 3), np.float32)
    values.tofile(folder / "secret.bin")
    return File(external(inner, "../secret.bin", values), None, None, 2, status="refused", says="own folder")


def link_elsewhere(folder: Path) -> File:
    """Weights beside the model by name, and a link to a file in another place: never read."""
    inner, other = folder / "inner", folder / "other"
    inner.mkdir()
    other.mkdir()
    values = np.ones((5, 3), np.float32)
    values.tofile(other / "secret.bin")
    (inner / "weights.bin").symlink_to(other / "secret.bin")
    return File(external(inner, "weights.bin", values), None, None, 2, status="refused", says="own folder")


def above_two_gib(folder: Path) -> File:
    """More weights than a protobuf holds: 590 million zeros in a sparse file beside the graph."""
    rows, columns = 16_384, 36_000
    with (folder / "weights.bin").open("wb") as file:
        file.truncate(4 * rows * columns)
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[rows, columns], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="weights.bin")
    path = save(
        folder / "large.onnx", [node("MatMul", "x w", "y")], {"x": (FLOAT, [1, rows])}, {"y": (FLOAT, [1, columns])},
        [tensor],
    )  # fmt: skip
    return File(path, rows * columns, rows * columns)


MAKERS: dict[str, Maker] = {
    each.__name__: each
    for each in (
        *(shape_arithmetic, fixed_shape_arithmetic, reshape_by_values, constant_nodes, constant_floats),
        *(quantized, quantized_operators, fused_products, fused_convolution, fused_attention, four_bits),
        *(dynamic_quantization, no_batch, bytes_last, integers_out, recurrent, lstm, loop, scan, either),
        *(local_function, hub_cache, weights_elsewhere, link_elsewhere),
    )
}
LARGE: dict[str, Maker] = {"above_two_gib": above_two_gib}  # minutes, and 5 GiB of memory: on demand
