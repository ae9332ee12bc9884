"""Where a forward's time goes, in a launch of its own: an engine's layers, or eager operators by stage and role."""

from __future__ import annotations

import time

from mixprof.data.errors import Unsupported
from mixprof.data.launch import Launch
from mixprof.lowerings import Lowered, roles
from mixprof.metrics import flops, module_tree, operators
from mixprof.metrics.operators import Watch

FORWARDS = 50
MOST_S = 5.0  # of eager forwards, at most about so long


def of_layers(lowered: Lowered) -> Launch:
    """Milliseconds of each layer and role of an engine. Never run on a GPU yet."""
    if lowered.layer_times is None:
        raise Unsupported("this lowering has no times of its layers")
    layer_ms = dict(lowered.layer_times(FORWARDS))
    role_ms = roles.role_times(layer_ms, lowered.proof.get("roles", {}))
    return Launch("ok", proof={"layer_ms": layer_ms, "role_ms": role_ms})


def of_operators(lowered: Lowered, watch: Watch, device: str) -> Launch:
    """Milliseconds, MACs and bytes of each stage and role of an eager forward, and all its costs by module."""
    assert lowered.forward is not None
    start = time.perf_counter()
    lowered.forward()
    once_s = time.perf_counter() - start
    forwards = max(3, min(FORWARDS, int(MOST_S / max(once_s, 1e-6))))
    runs = operators.timed(lowered.forward, watch, device, forwards)
    rows = operators.breakdown(runs)
    with module_tree.outputs(watch.module) as kept:
        counts = flops.count(lowered.forward, within=watch.module)
    branches = module_tree.timed(module_tree.tree(watch.module, counts, kept, watch.declared), runs)
    role_ms: dict[str, float] = {}
    for row in rows:
        role_ms[row["role"]] = role_ms.get(row["role"], 0.0) + row["ms"]
    modules = [branch.to_json() for branch in branches]
    return Launch("ok", proof={"breakdown": rows, "role_ms": role_ms, "modules": modules})
