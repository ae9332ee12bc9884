"""TensorRT and TensorRT-RTX: an engine from the exported graph, proven, and timed where there is a device."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixprof.data import cache
from mixprof.data.errors import Unsupported
from mixprof.data.parsing import parse_bytes
from mixprof.lowerings import Lowered, Target
from mixprof.lowerings.onnxruntime import export, reason_of, session_of
from mixprof.lowerings.tensorrt import builder, flavours, graphs, proof, runtime, trtexec
from mixprof.lowerings.tensorrt.builder import Recipe
from mixprof.machine import device


def lower(module: nn.Module, inputs: tuple[Tensor, ...], target: Target) -> Lowered:
    """Export, build or fetch an engine, and bind it where there is a device.

    Options: `opt=` optimization level, `workspace=` bytes, `sm=` target, `graph=on` CUDA graph, `dynamic` with
    `batches=` and `resolutions=` a profile of shapes.
    """
    require_device_name(target)
    dtype = device.torch_dtype(target.dtype)
    inputs = tuple(each.to(dtype).contiguous() for each in inputs)
    module = fold_batch_norms(module).to(dtype)
    path = target.cache / f"{target.key}.onnx"
    if not path.exists():
        dynamic = graphs.dynamic_axes(inputs, target)
        # torch.export takes an axis of length 1 for one that is always 1.
        example = tuple(torch.cat([each, each]) if dynamic and len(each) == 1 else each for each in inputs)
        export(module, example, path, dynamic)
    return lower_graph(path.read_bytes(), inputs, target)


def lower_graph(onnx: bytes, inputs: tuple[Tensor, ...], target: Target) -> Lowered:
    """An engine of an ONNX graph, with its inputs in the graph's order."""
    require_device_name(target)
    start = time.perf_counter()
    flavour = target.name
    trt = flavours.load(flavour)
    graph = graphs.Graph.read(onnx)
    kept = cache.keep_graph(onnx)
    recipe = recipe_of(graph, inputs, target)
    builder.check_profile(graph.inputs, recipe.profile)
    key = recipe.key(kept.stem, trt.__version__)
    stored, warning = cache.fetch(key)
    if stored is None:
        built = builder.build(trt, onnx, recipe)
        cache.store(key, built.engine, _proof_of(built, graph, recipe, trt, kept))
    entry = cache.fetch(key)[0]
    assert entry is not None, "an engine that was just stored"
    engine, found = entry
    shapes = {name: tuple(each.shape) for name, each in zip(graph.inputs, inputs, strict=True)}
    found = {
        **found,
        "engine_key": key,
        "shapes": {name: list(shape) for name, shape in shapes.items()},
        "trtexec": trtexec.command(
            flavour,
            trt.__version__,
            cache.engine_path(key),
            int(target.device.split(":")[1]),
            {name: shapes[name] for name in recipe.profile},
            graphed="graph" in target.options,
        ),
        "engine_bytes": len(engine),
        **({"warning": warning} if warning else {}),
    }
    lowered = Lowered(
        forward=None,
        read=lambda: _in_onnxruntime(kept, graph, inputs, target),
        build_s=time.perf_counter() - start,
        build_cached=stored is not None,
        artifact_bytes=len(engine),
        proof=found,
        runs_in_torch=False,
    )
    if runtime.device_count() <= int(target.device.split(":")[1]):
        return lowered
    return _on_device(lowered, trt, engine, graph, inputs, target, time.perf_counter() - start)


def lower_file(path: Path, inputs: tuple[Tensor, ...], target: Target) -> Lowered:
    """An engine of an ONNX file at its inputs' shapes."""
    return lower_graph(path.read_bytes(), inputs, target)


def require_device_name(target: Target) -> None:
    if target.device == "cpu":
        raise Unsupported(f"lowering '{target.name}': engines run on CUDA devices only: use --devices cuda:0")


def recipe_of(graph: graphs.Graph, inputs: tuple[Tensor, ...], target: Target) -> Recipe:
    options = target.options
    return Recipe(
        flavour=target.name,
        tf32=target.dtype == "tf32",
        profile=graphs.profile(graph, inputs, target),
        level=int(options["opt"]) if "opt" in options else None,
        workspace=parse_bytes(options["workspace"]) if "workspace" in options else None,
        target=options.get("sm"),
        device=runtime.device_name(int(target.device.split(":")[1])),
    )


def _proof_of(
    built: builder.Build, graph: graphs.Graph, recipe: Recipe, trt: flavours.TensorRT, kept: Path
) -> dict[str, Any]:
    """What is stored beside an engine: it is the same whenever the engine is fetched again."""
    layers = proof.parse_layers(proof.layers_text(built.lines))
    return {
        "flavour": recipe.flavour,
        "tensorrt_version": trt.__version__,
        "source": "builder log",
        "onnx_sha256": kept.stem,
        "profile": {name: [list(shape) for shape in shapes] for name, shapes in recipe.profile.items()},
        "engine_build_s": built.build_s,
        **proof.memory_of(built.lines),
        **proof.summarize(layers, graph.operators, graph.outputs),
        "roles": graph.roles_of(layers),
    }


def _on_device(
    lowered: Lowered,
    trt: flavours.TensorRT,
    engine: bytes,
    graph: graphs.Graph,
    inputs: tuple[Tensor, ...],
    target: Target,
    spent_s: float,
) -> Lowered:
    start = time.perf_counter()
    names = list(graph.inputs)
    runner = runtime.Runner(
        trt,
        engine,
        int(target.device.split(":")[1]),
        {name: raw_bytes(each) for name, each in zip(names, inputs, strict=True)},
        {name: tuple(each.shape) for name, each in zip(names, inputs, strict=True)},
        flavours.messages(trt),
        graph="graph" in target.options,
    )
    layers = proof.parse_layers(runner.inspect(trt))
    found = dict(lowered.proof)
    if layers:
        found |= {**proof.summarize(layers, graph.operators, graph.outputs), "source": "engine inspector"}
        found["roles"] = graph.roles_of(layers)
    found |= {"activation_bytes": runner.activation_bytes, "cuda_graph": "graph" in target.options}
    dtypes = {name: graph.dtype_of(name) for name in graph.outputs}

    def read_all() -> list[Tensor]:
        content = runner.read()
        return [
            torch.frombuffer(bytearray(content[name]), dtype=dtype).view(runner.outputs[name][0])
            for name, dtype in dtypes.items()
        ]

    return replace(
        lowered,
        forward=runner.forward,
        read=lambda: read_all()[0],
        build_s=spent_s + time.perf_counter() - start,
        proof=found,
        stream=runner.stream,
        layer_times=lambda forwards: runner.layer_times(trt, forwards),
        close=runner.close,
        read_all=read_all,
    )


def raw_bytes(tensor: Tensor) -> Any:
    """A CPU tensor's content as numpy bytes: numpy has no bfloat16."""
    return tensor.contiguous().view(-1).view(torch.uint8).numpy()


def _in_onnxruntime(path: Path, graph: graphs.Graph, inputs: tuple[Tensor, ...], target: Target) -> Tensor:
    """The graph's first output as onnxruntime computes it on the CPU. Unsupported where it refuses the graph."""
    session = session_of(path, "cpu", target.threads)
    try:
        feeds = {name: each.numpy() for name, each in zip(graph.inputs, inputs, strict=True)}
        return torch.from_numpy(session.run(None, feeds)[0])
    except Exception as error:  # onnxruntime raises classes of its own, one for each status code
        raise Unsupported(f"onnxruntime: {reason_of(error)}") from error


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """The module with batch norms folded into the convolutions before them, where torch.fx can trace it.

    Registered models have folded theirs by themselves; without it a bfloat16 export keeps float32 statistics.
    """
    if not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules()):
        return module
    from torch.fx.experimental.optimization import fuse

    with contextlib.suppress(torch.fx.proxy.TraceError, NotImplementedError, TypeError, ValueError):
        folded: nn.Module = fuse(module, inplace=False)
        return folded
    return module
