"""What makers of ONNX files share: nodes, weights, a file with what is right for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

FLOAT, BYTES, INT8, INT32, INT64, BOOL = 1, 2, 3, 6, 7, 9
Shape = Sequence[int | str]


@dataclass(frozen=True)
class File:
    """A file and what is right for it."""

    path: Path
    params: int | None
    macs: int | None
    batch: int = 1
    resolution: tuple[int, int] | None = None  # that the case must have; None: not looked at
    options: tuple[str, ...] = ()
    status: str = "ok"
    says: str = ""


Maker = Callable[[Path], File]


def weights(name: str, *shape: int, kind: type = np.float32) -> Any:
    """A tensor of random values, small whole numbers where the type is one of integers."""
    generator = np.random.default_rng(len(name) + sum(shape))
    values = generator.normal(size=shape) if kind == np.float32 else generator.integers(-9, 9, shape)
    return numpy_helper.from_array(values.astype(kind), name)


def array(name: str, values: Any, kind: type = np.int64) -> Any:
    return numpy_helper.from_array(np.array(values, kind), name)


def node(kind: str, given: str, made: str, domain: str = "", **attributes: Any) -> Any:
    """A node; names of its inputs and outputs stand with spaces between, "_" for one that is left out."""
    names = ["" if name == "_" else name for name in given.split()]
    return helper.make_node(kind, names, made.split(), domain=domain, **attributes)


def save(
    path: Path,
    nodes: Sequence[Any],
    given: Mapping[str, tuple[int, Shape | None]],
    returned: Mapping[str, tuple[int, Shape | None]],
    constants: Sequence[Any] = (),
    functions: Sequence[Any] = (),
) -> Path:
    """Write a model of opset 20, with Microsoft's own operators where one is used."""
    takes, gives = (
        [helper.make_tensor_value_info(name, *each) for name, each in side.items()] for side in (given, returned)
    )
    graph = helper.make_graph(list(nodes), "people", takes, gives, list(constants))
    domains = {"": 20, "com.microsoft": 1, **{each.domain: 1 for each in functions}}
    imports = [helper.make_opsetid(name, version) for name, version in domains.items()]
    model = helper.make_model(graph, opset_imports=imports, functions=list(functions))
    model.ir_version = 10
    onnx.save(model, str(path))
    return path
