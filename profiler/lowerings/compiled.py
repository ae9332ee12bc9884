"""torch.compile with inductor: static shapes, one compilation, before anything is timed."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from mixprof.data.errors import Unavailable, Unsupported
from mixprof.lowerings import Lowered, Target
from mixprof.lowerings.eager import of_function, place
from mixprof.machine import devices


def lower(module: nn.Module, inputs: tuple[Tensor, ...], target: Target) -> Lowered:
    """Compile for the inputs' shapes. Options name a mode of torch.compile."""
    from torch._dynamo.utils import counters
    from torch._inductor import metrics

    refuse_noexec("compile", Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR") or tempfile.gettempdir()))
    module, inputs = place(module, inputs, target)
    mode = next(iter(target.options), "default")
    counters.clear()
    start = time.perf_counter()
    compiled = torch.compile(module, dynamic=False, mode=mode)
    for _ in range(3):  # the second and third settle autotuning and CUDA graphs
        compiled(*inputs)
    devices.of(target.device).synchronize()
    build_s = time.perf_counter() - start
    if not counters["stats"]["unique_graphs"]:
        raise Unsupported("lowering 'compile': torch.compile captured no graph, so this would be eager under its name")
    hits, misses = (counters["inductor"][f"fxgraph_cache_{kind}"] for kind in ("hit", "miss"))
    proof = {
        "graphs": counters["stats"]["unique_graphs"],
        "graph_breaks": sum(counters["graph_break"].values()),
        "graph_break_reasons": sorted(str(reason) for reason in counters["graph_break"])[:8],
        "recompiles": 0,
        # A graph from the cache generates no kernels, so there is nothing to count then.
        "kernels": metrics.generated_kernel_count or None,
        "mode": mode,
    }

    return of_function(
        lambda: compiled(*inputs),
        build_s,
        build_cached=bool(hits and not misses),
        proof=proof,
        compilations=lambda: int(counters["stats"]["unique_graphs"]),
    )


def refuse_noexec(name: str, folder: Path) -> None:
    """Raise Unavailable where nothing that inductor builds could be loaded: Docker mounts such a /tmp."""
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if os.statvfs(place).f_flag & os.ST_NOEXEC:
        raise Unavailable(
            f"lowering '{name}': '{place}' is mounted noexec, and what is compiled is loaded from there: "
            "set TMPDIR to a folder elsewhere, or of a sweep --out"
        )
