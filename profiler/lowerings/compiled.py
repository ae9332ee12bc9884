"""torch.compile with inductor: static shapes, one compilation, before anything is timed."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixprof.data.errors import Unavailable, Unsupported
from mixprof.lowerings import Lowered, Target
from mixprof.lowerings.eager import of_function, place
from mixprof.machine import devices

MODES = ("default", "max-autotune", "reduce-overhead", "max-autotune-no-cudagraphs")


def lower(module: nn.Module, inputs: tuple[Tensor, ...], target: Target) -> Lowered:
    """Compile for the inputs' shapes. Options name a mode of torch.compile."""
    module, inputs = place(module, inputs, target)
    mode = next((name for name in target.options if name in MODES), "default")  # else of a training step
    counted = Counted("compile")
    start = time.perf_counter()
    compiled = torch.compile(module, dynamic=False, mode=mode)
    for _ in range(3):  # the second and third settle autotuning and CUDA graphs
        compiled(*inputs)
    devices.of(target.device).synchronize()
    return of_function(lambda: compiled(*inputs), time.perf_counter() - start, **counted.details(mode))


class Counted:
    """Counts graphs, breaks and kernels of torch.compile, from now on."""

    def __init__(self, name: str):
        from torch._dynamo.utils import counters

        refuse_noexec(name, Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR") or tempfile.gettempdir()))
        self.counters = counters
        counters.clear()

    def graphs(self) -> int:
        return int(self.counters["stats"]["unique_graphs"])

    def details(self, mode: str) -> dict[str, Any]:
        """Fields of a Lowered. Unsupported where nothing was compiled."""
        from torch._inductor import metrics

        counters = self.counters
        if not self.graphs():
            raise Unsupported(
                "lowering 'compile': torch.compile captured no graph, so this would be eager under its name"
            )
        hits, misses = (counters["inductor"][f"fxgraph_cache_{kind}"] for kind in ("hit", "miss"))
        proof = {
            "graphs": self.graphs(),
            "graph_breaks": sum(counters["graph_break"].values()),
            "graph_break_reasons": sorted(str(reason) for reason in counters["graph_break"])[:8],
            "recompiles": 0,
            # A graph from the cache generates no kernels, so there is nothing to count then.
            "kernels": metrics.generated_kernel_count or None,
            "mode": mode,
        }
        return {"build_cached": bool(hits and not misses), "proof": proof, "compilations": self.graphs}


def refuse_noexec(name: str, folder: Path) -> None:
    """Raise Unavailable where nothing that inductor builds could be loaded: Docker mounts such a /tmp."""
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if os.statvfs(place).f_flag & os.ST_NOEXEC:
        raise Unavailable(
            f"lowering '{name}': '{place}' is mounted noexec, and what is compiled is loaded from there: "
            "set TMPDIR to a folder elsewhere, or of a sweep --out"
        )
