"""Multiply-accumulates of an ONNX graph, from the shapes that ONNX infers, or else a run tells.

As in `flops`, an operator that is neither known to be light nor has a formula is named in `uncounted_ops`; so is one
whose shapes nothing tells. Bodies count as often as they run: a Loop's in every trip, an If's branch that is taken.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from mixprof.lowerings.onnx_graph import inferred, shapes_of, skeleton, with_weights
from mixprof.metrics.flops import Counts
from mixprof.metrics.onnx_costs import FORMULAS, LIGHT, name_of
from mixprof.metrics.onnx_probes import BODIES, Probes, Site, Values, bodies

Run = Callable[[Any], Values | None]  # a ModelProto -> each of its outputs by name; None where it cannot be run


def count(model: Any, run: Run | None = None) -> Counts:
    """Cost of one forward of a ModelProto whose inputs have fixed shapes.

    run: runs a graph on the case's inputs. It is called where shapes are not known without.
    """
    graph = skeleton(model)
    if model.functions:
        import onnx.inliner

        graph = onnx.inliner.inline_local_functions(graph)
    uncounted = {name for name in map(name_of, _nodes(graph.graph)) if name not in {*FORMULAS, *LIGHT, *BODIES}}
    macs: Counter[str] = Counter()
    for site, cost in _costs(graph, model, run):
        if cost is None:
            uncounted.add(site.container)
        else:
            macs[name_of(site.node)] += cost
    by_op = {name: value for name, value in macs.most_common() if value}
    return Counts(sum(by_op.values()), by_op, tuple(sorted(uncounted)))


def _nodes(graph: Any) -> Iterator[Any]:
    """The nodes of a graph and of all bodies in it."""
    for node in graph.node:
        yield node
        for body in bodies(node):
            yield from _nodes(body)


def _costs(graph: Any, model: Any, run: Run | None) -> Iterator[tuple[Site, int | None]]:
    """The sites of operators that have a formula, and their MACs; None where nothing tells their shapes."""
    probes = Probes(shapes_of(inferred(graph).graph))
    probes.add(graph)
    asks = run is not None and any(site.probes for site in probes.sites)
    outputs = run(with_weights(graph, model)) if run is not None and asks else None
    values = {} if outputs is None else probes.values(outputs)
    for site in probes.sites:
        yield site, site.macs(values)
