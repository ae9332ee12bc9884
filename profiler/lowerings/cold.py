"""A process that does nothing but deploy an artifact: `python -m mixprof.lowerings.cold`, its order on standard input.

It imports what the engine needs and nothing else of ours, loads the artifact, runs it once, and says when.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Fed:
    """An input of ones: how long a first run takes does not follow from values."""

    dtype: str  # torch's name
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Cold:
    """What a deploying process is told."""

    load: str  # "module:function" that takes this order's fields and returns the first run as a function
    packages: tuple[str, ...]  # that it imports first
    path: str
    inputs: tuple[Fed, ...]
    threads: int
    settings: dict[str, Any] = field(default_factory=dict)  # the engine's own


def order(runtime: str, path: Path, inputs: Sequence[Tensor], threads: int, settings: dict[str, Any]) -> Cold:
    """The order for one of the functions below, with the packages that it needs."""
    fed = tuple(Fed(str(x.dtype).removeprefix("torch."), tuple(x.shape), x.stride()) for x in inputs)
    packages = {"aot": ("torch", "torch._inductor"), "onnxruntime": ("numpy", "onnxruntime")}
    needed = packages.get(runtime, ("numpy", runtime))
    return Cold(f"{__name__}:{runtime}", needed, str(path.resolve()), fed, threads, settings)


def onnxruntime(told: dict[str, Any]) -> Callable[[], object]:
    """A session as a first run."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = told["threads"], 1
    level = told["settings"].get("level", "ORT_ENABLE_ALL")
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    session = onnxruntime.InferenceSession(told["path"], options, providers=["CPUExecutionProvider"])
    fed = {node.name: _ones(one) for node, one in zip(session.get_inputs(), told["inputs"], strict=True)}
    return lambda: session.run(None, fed)


def openvino(told: dict[str, Any]) -> Callable[[], object]:
    """A compiled model's request as a first run."""
    import openvino

    request = openvino.Core().compile_model(told["path"], "CPU", told["settings"]).create_infer_request()
    for index, one in enumerate(told["inputs"]):
        if one["dtype"] == "bfloat16":
            tensor = openvino.Tensor(_ones({**one, "dtype": "uint16"}), one["shape"], openvino.Type.bf16)
        else:
            tensor = openvino.Tensor(_ones(one), shared_memory=True)
        request.set_input_tensor(index, tensor)
    return lambda: request.infer(share_outputs=True)


def aot(told: dict[str, Any]) -> Callable[[], object]:
    """A loaded package as a first run."""
    import torch

    torch.set_num_threads(told["threads"])
    run = torch._inductor.aoti_load_package(told["path"])
    fed = [
        torch.empty_strided(one["shape"], one["strides"], dtype=getattr(torch, one["dtype"])).fill_(1)
        for one in told["inputs"]
    ]
    return lambda: run(*fed)


def _ones(one: dict[str, Any]) -> Any:
    import numpy as np

    return np.ones(one["shape"], one["dtype"])


def main() -> None:
    told, started = json.load(sys.stdin), time.monotonic()
    for name in told["packages"]:
        importlib.import_module(name)
    imported = time.monotonic()
    module, _, function = told["load"].partition(":")
    run = getattr(importlib.import_module(module), function)(told)
    loaded = time.monotonic()
    run()
    ended = time.monotonic()
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    times = {"import_s": imported - started, "load_s": loaded - imported, "first_ms": (ended - loaded) * 1e3}
    print(json.dumps({**times, "ended": ended, "peak_bytes": int(peak.split()[1]) * 1024}), flush=True)


if __name__ == "__main__":
    main()
