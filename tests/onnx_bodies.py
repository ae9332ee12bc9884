"""ONNX files that repeat or choose: recurrent layers, loops, branches, functions. Makers of onnx_people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import helper

from onnx_makers import BOOL, FLOAT, INT64, File, array, node, save, weights


def recurrent(folder: Path) -> File:
    """LSTM(4, 5) both ways, then GRU(10, 6) and RNN(6, 3), on 3 steps of 2 sequences."""
    nodes = [
        node("LSTM", "x wl rl", "l", hidden_size=5, direction="bidirectional"),
        node("Transpose", "l", "t", perm=[0, 2, 1, 3]), node("Reshape", "t flat", "g"),
        node("GRU", "g wg rg", "h", hidden_size=6), node("Squeeze", "h one", "s"),
        node("RNN", "s wr rr", "y", hidden_size=3),
    ]  # fmt: skip
    constants = [
        weights("wl", 2, 20, 4), weights("rl", 2, 20, 5), weights("wg", 1, 18, 10), weights("rg", 1, 18, 6),
        weights("wr", 1, 3, 6), weights("rr", 1, 3, 3), array("flat", [3, 2, 10]), array("one", [1]),
    ]  # fmt: skip
    path = save(folder / "recurrent.onnx", nodes, {"x": (FLOAT, [3, 2, 4])}, {"y": (FLOAT, [3, 1, 2, 3])}, constants)
    macs = 6 * (2 * 20 * (4 + 5) + 18 * (10 + 6) + 3 * (6 + 3))
    return File(path, 360 + 288 + 27, macs, 3)


def lstm(folder: Path) -> File:
    """LSTM(4, 5) on 3 x 2 x 4: 1,080 MACs."""
    constants = [weights("w", 1, 20, 4), weights("r", 1, 20, 5), weights("b", 1, 40)]
    nodes = [node("LSTM", "x w r b", "y", hidden_size=5)]
    path = save(folder / "lstm.onnx", nodes, {"x": (FLOAT, [3, 2, 4])}, {"y": (FLOAT, [3, 1, 2, 5])}, constants)
    return File(path, 220, 1080, 3)


def loop(folder: Path) -> File:
    """A product that is done seven times, x (2, 8) by (8, 8)."""
    takes = [helper.make_tensor_value_info("i", INT64, []), helper.make_tensor_value_info("on", BOOL, []),
             helper.make_tensor_value_info("before", FLOAT, [2, 8])]  # fmt: skip
    gives = [helper.make_tensor_value_info("still", BOOL, []), helper.make_tensor_value_info("after", FLOAT, [2, 8])]
    body = helper.make_graph(
        [node("Identity", "on", "still"), node("MatMul", "before w", "m"), node("Tanh", "m", "after")],
        "body", takes, gives,
    )  # fmt: skip
    constants = [weights("w", 8, 8), array("trips", 7), array("go", True, np.bool_)]
    path = save(
        folder / "loop.onnx", [node("Loop", "trips go x", "y", body=body)], {"x": (FLOAT, [2, 8])},
        {"y": (FLOAT, [2, 8])}, constants,
    )  # fmt: skip
    return File(path, 64, 7 * 2 * 64, 2)


def scan(folder: Path) -> File:
    """A product in each of nine steps of a Scan: state (2, 8), steps (9, 2, 8)."""
    takes = [helper.make_tensor_value_info(name, FLOAT, [2, 8]) for name in ("state", "step")]
    gives = [helper.make_tensor_value_info(name, FLOAT, [2, 8]) for name in ("next", "seen")]
    nodes = [node("MatMul", "state w", "m"), node("Add", "m step", "next"), node("Identity", "next", "seen")]
    body = helper.make_graph(nodes, "body", takes, gives)
    path = save(
        folder / "scan.onnx", [node("Scan", "start x", "last y", body=body, num_scan_inputs=1)],
        {"x": (FLOAT, [9, 2, 8])}, {"y": (FLOAT, [9, 2, 8])},
        [weights("w", 8, 8), array("start", np.zeros((2, 8)), np.float32)],
    )  # fmt: skip
    return File(path, 64 + 16, 9 * 2 * 64, 9)


def either(folder: Path) -> File:
    """An If whose two branches cost the same, chosen by the values fed."""
    branches = {}
    for name in ("then_branch", "else_branch"):
        made = helper.make_tensor_value_info(f"{name}_y", FLOAT, [2, 8])
        branches[name] = helper.make_graph([node("MatMul", "x w", f"{name}_y")], name, [], [made])
    nodes = [
        node("ReduceSum", "x", "s", keepdims=0), node("Greater", "s nought", "c"), node("If", "c", "y", **branches),
    ]  # fmt: skip
    constants = [weights("w", 8, 8), array("nought", 0, np.float32)]
    path = save(folder / "if.onnx", nodes, {"x": (FLOAT, [2, 8])}, {"y": (FLOAT, [2, 8])}, constants)
    return File(path, 64 + 1, 2 * 64, 2)


def local_function(folder: Path) -> File:
    """A layer as a function of the model's own domain, called twice with other weights."""
    called = helper.make_function(
        "people", "Layer", ["x", "w"], ["y"], [node("MatMul", "x w", "m"), node("Relu", "m", "y")],
        [helper.make_opsetid("", 20)],
    )  # fmt: skip
    nodes = [node("Layer", "x v", "h", "people"), node("Layer", "h w", "y", "people")]
    path = save(
        folder / "function.onnx", nodes, {"x": (FLOAT, [2, 8])}, {"y": (FLOAT, [2, 3])},
        [weights("v", 8, 6), weights("w", 6, 3)], [called],
    )  # fmt: skip
    return File(path, 48 + 18, 2 * (48 + 18), 2)
