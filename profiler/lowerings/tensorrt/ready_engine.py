"""A ready engine, `net.plan`, as it is: nothing is built. Its running part has never run on a GPU."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixprof.data import cache
from mixprof.data.errors import Unsupported
from mixprof.lowerings import Lowered, Target
from mixprof.lowerings.tensorrt import flavours, proof, runtime, trtexec
from mixprof.lowerings.tensorrt.lower import raw_bytes, require_device_name

DTYPES = {
    "FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "INT64": "int64", "INT32": "int32", "INT8": "int8",
    "UINT8": "uint8", "BOOL": "bool",
}  # fmt: skip
NO_DEVICE = r"Cuda Runtime|cudaError \d|CUDA init"  # in what TensorRT says when the device is all that is missing


def lower(
    path: Path,
    engine: bytes,
    shapes: Mapping[str, tuple[int, ...]],
    feed: Callable[[str, str], Tensor],
    target: Target,
) -> Lowered:
    """Bind an engine where there is a device; elsewhere, only look whether it could be one.

    feed: an input's name and element type -> what it holds.
    """
    require_device_name(target)
    trt = flavours.load(target.name)
    start = time.perf_counter()
    graphed = "graph" in target.options
    found = {
        "flavour": target.name,
        "tensorrt_version": trt.__version__,
        "source": "ready engine",
        "engine_sha256": cache.sha256(engine),
        "engine_bytes": len(engine),
        "trtexec": trtexec.command(
            target.name, trt.__version__, path, int(target.device.split(":")[1]), shapes, graphed=graphed
        ),
    }
    index = int(target.device.split(":")[1])
    if runtime.device_count() <= index:
        _refuse_damaged(trt, engine, target.name)
        return Lowered(None, _cannot_be_read, 0.0, artifact_bytes=len(engine), proof=found, runs_in_torch=False)
    log = flavours.messages(trt)

    def feeds(loaded: Any) -> dict[str, Any]:
        return {name: raw_bytes(feed(name, dtype_of(loaded, name))) for name in shapes}

    runner = runtime.Runner(trt, engine, index, feeds, shapes, log, graph=graphed)
    layers = proof.parse_layers(runner.inspect(trt))
    if layers:
        summary = proof.summarize(layers, {}, runner.outputs)
        # Operators are those of an ONNX graph, which a ready engine comes without.
        unknown = dict.fromkeys(("attentions", "fused_attentions", "product_dtypes"))
        found |= {**summary, **unknown, "source": "engine inspector"}
    found |= {"activation_bytes": runner.activation_bytes, "cuda_graph": graphed}

    def read_all() -> list[Tensor]:
        content = runner.read()
        return [
            torch.frombuffer(bytearray(content[name]), dtype=getattr(torch, dtype_of(runner.engine, name))).view(shape)
            for name, (shape, _) in runner.outputs.items()
        ]

    return Lowered(
        runner.forward,
        lambda: read_all()[0],
        time.perf_counter() - start,
        artifact_bytes=len(engine),
        proof=found,
        runs_in_torch=False,
        stream=runner.stream,
        layer_times=lambda forwards: runner.layer_times(trt, forwards),
        close=runner.close,
        read_all=read_all,
    )


def _cannot_be_read() -> Tensor:
    raise Unsupported("a ready engine runs on its device only")


def dtype_of(engine: Any, name: str) -> str:
    """The element type of an engine's input or output, as torch names it."""
    found = str(engine.get_tensor_dtype(name)).rsplit(".", 1)[-1]
    if found not in DTYPES:
        raise Unsupported(f"got element type {found} of '{name}', expected one of {', '.join(DTYPES)}")
    return DTYPES[found]


def _refuse_damaged(trt: flavours.TensorRT, engine: bytes, flavour: str) -> None:
    """Let TensorRT try: without a device it gets as far as missing one, unless the file is none of its engines.

    Tried with TensorRT-RTX only. Damage beyond the engine's outline shows on a device alone.
    """
    log = flavours.messages(trt)
    loaded = trt.Runtime(log).deserialize_cuda_engine(engine)
    said = log.errors().split(" | ")[0]  # what follows is the missing device in any case
    if loaded is None and said and not re.search(NO_DEVICE, said):
        raise Unsupported(f"{flavour}: this is no engine that it takes: {said}"[:500])
