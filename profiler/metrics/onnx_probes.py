"""Outputs that are added to an ONNX graph so that a run of it tells the shapes that nothing but a run can tell.

A probe is a vector of RANK whole numbers, a shape and then END; NOT_RUN all over in a branch that is not taken. One
within a loop has an axis in front for its trips. What lies between is not kept: a run takes the memory of the graph.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mixprof.metrics.onnx_costs import FORMULAS, Node, Shape, name_of

RANK, END, NOT_RUN = 12, -1, -2
PREFIX = "mixprof_probe"
BODIES = {"Loop": ("body",), "Scan": ("body",), "If": ("then_branch", "else_branch")}
Values = Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Site:
    """An operator whose cost awaits a run, and the probes of its inputs and outputs."""

    node: Any
    container: str  # the operator of the graph's own that it lies in, or itself
    inputs: tuple[str | Shape, ...]  # the output that tells a shape, or the shape
    outputs: tuple[str | Shape, ...]

    @property
    def probes(self) -> list[str]:
        return [value for value in (*self.inputs, *self.outputs) if isinstance(value, str)]

    def macs(self, values: Values) -> int | None:
        """MACs over all trips of the loops around it; None where no value tells of a probe, or its formula cannot."""
        if any(name not in values for name in self.probes):
            return None
        rows = {name: values[name].reshape(-1, RANK) for name in self.probes}
        trips = [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)] if rows else [{}]
        costs = [self._cost(trip) for trip in trips]
        known = [cost for cost in costs if cost is not None]
        return sum(known) if len(known) == len(costs) else None

    def _cost(self, rows: Values) -> int | None:
        """MACs of one trip: none in a branch that is not taken."""
        if any(row[0] == NOT_RUN for row in rows.values()):
            return 0
        inputs, outputs = (
            tuple(_shape(rows[value]) if isinstance(value, str) else value for value in side)
            for side in (self.inputs, self.outputs)
        )
        attributes = {attribute.name: attribute for attribute in self.node.attribute}
        return FORMULAS[name_of(self.node)](Node(inputs, outputs, attributes))


def _shape(row: NDArray[np.int64]) -> Shape:
    return tuple(int(size) for size in row if size != END)


def bodies(node: Any) -> list[Any]:
    """The graphs that a node runs, once or in every trip."""
    return [attribute.g for attribute in node.attribute if attribute.name in BODIES.get(node.op_type, ())]


class Probes:
    """Adds probes to a graph, in place, and remembers the sites that they are for."""

    def __init__(self, known: Mapping[str, Shape]):
        """known: the shapes of the graph's own values, as far as they can be inferred."""
        self.sites: list[Site] = []
        self._known = known
        self._outside: dict[str, str] = {}  # a probe in a body -> the output of its container that hands it out
        self._numbers = count()

    def add(self, model: Any) -> None:
        """Replace the outputs of a model by probes of every value of no known shape that a formula asks for."""
        made = self._graph(model.graph, self._known, "")
        for name, values in (("end", [END] * RANK), ("first", range(RANK)), ("none", [NOT_RUN] * RANK)):
            constant = numpy_helper.from_array(np.array(values, np.int64), f"{PREFIX}_{name}")
            model.graph.initializer.append(constant)
        del model.graph.output[:]
        _declare(model.graph, made)

    def _graph(self, graph: Any, known: Mapping[str, Shape], container: str) -> list[str]:
        """Add the probes of one graph and of the bodies in it: the names of the values that hold them."""
        known = {**known, **{tensor.name: tuple(tensor.dims) for tensor in graph.initializer}}
        probed: dict[str, str] = {}
        made, nodes = [], []
        for node in graph.node:
            if node.op_type in BODIES:
                made += self._bodies(node, known, container or name_of(node))
            nodes.append(node)
            if name_of(node) in FORMULAS:
                for name in (*node.input, *node.output):
                    if name and name not in known and name not in probed:
                        probed[name] = self._unique()
                        nodes += _shape_nodes(name, probed[name])
                shapes: dict[str, str | Shape] = {"": (), **known, **probed}
                inputs, outputs = (tuple(shapes[name] for name in side) for side in (node.input, node.output))
                self.sites.append(Site(node, container or name_of(node), inputs, outputs))
        del graph.node[:]
        graph.node.extend(nodes)
        return made + list(probed.values())

    def values(self, outputs: Values) -> Values:
        """What a run told of each probe, those within bodies included."""
        values = dict(outputs)
        for inner in reversed(self._outside):  # containers are closed from within
            values[inner] = values[self._outside[inner]]
        return values

    def _unique(self) -> str:
        return f"{PREFIX}_{next(self._numbers)}"

    def _bodies(self, node: Any, known: Mapping[str, Shape], container: str) -> list[str]:
        """Hand the probes within a node's bodies out of it, as outputs of its own."""
        inner = [(body, self._graph(body, known, container)) for body in bodies(node)]
        made = [name for _, names in inner for name in names]
        if node.op_type == "If":
            inner = [(body, [name if name in names else self._not_run(body) for name in made]) for body, names in inner]
        for body, names in inner:
            places = len(body.output) - (node.op_type == "Loop")  # the last ones may have been left out
            node.output.extend([""] * (places - len(node.output)))
            _declare(body, names)
        outer = [self._unique() for _ in made]
        node.output.extend(outer)
        self._outside |= dict(zip(made, outer, strict=True))
        for attribute in node.attribute:
            if attribute.name in ("scan_output_axes", "scan_output_directions"):
                attribute.ints.extend([0] * len(outer))
        return outer

    def _not_run(self, body: Any) -> str:
        """A value that stands in a branch for a probe of the other one."""
        name = self._unique()
        body.node.append(helper.make_node("Identity", [f"{PREFIX}_none"], [name]))
        return name


def _shape_nodes(value: str, name: str) -> list[Any]:
    """Nodes that make a probe of a value: any opset has them."""
    return [
        helper.make_node("Shape", [value], [f"{name}_shape"]),
        helper.make_node("Concat", [f"{name}_shape", f"{PREFIX}_end"], [f"{name}_long"], axis=0),
        helper.make_node("Gather", [f"{name}_long", f"{PREFIX}_first"], [name]),
    ]


def _declare(graph: Any, names: Iterable[str]) -> None:
    graph.output.extend(helper.make_tensor_value_info(name, TensorProto.INT64, None) for name in names)
