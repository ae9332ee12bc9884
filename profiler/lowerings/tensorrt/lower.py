"""TensorRT and TensorRT-RTX: engines of modules, ONNX files and plans, proven, and timed where there is a device."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mixprof.data import cache
from mixprof.data.case import QUANTIZED
from mixprof.data.errors import Unsupported, first_line
from mixprof.data.parsing import parse_bytes
from mixprof.lowerings import Lowered, Proof, Target, cast, convert, quantize
from mixprof.lowerings.onnx_export import export, fold_batch_norms
from mixprof.lowerings.onnx_graph import Graph
from mixprof.lowerings.onnxruntime import session_of
from mixprof.lowerings.tensorrt import build, profiles, proof, run, trtexec
from mixprof.lowerings.tensorrt.build import Recipe
from mixprof.machine import cuda_driver
from mixprof.machine.process import torch_dtype

if TYPE_CHECKING:
    from mixprof.lowerings.tensorrt.build import TensorRT

DTYPES = {
    "FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "INT64": "int64", "INT32": "int32", "INT8": "int8",
    "UINT8": "uint8", "BOOL": "bool",
}  # fmt: skip
NO_DEVICE = r"Cuda Runtime|cudaError \d|CUDA init"  # in TensorRT's words when the device is all that is missing
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Engine:
    """A serialized engine and its inputs."""

    trt: TensorRT
    content: bytes
    shapes: Mapping[str, Shape]  # of the inputs
    feed: Callable[[str, str], Tensor]  # an input's name and element type -> its tensor
    outputs: tuple[str, ...] | None = None  # in the order in which they are read; None: in the engine's


def lower(module: nn.Module, inputs: tuple[Tensor, ...], target: Target) -> Lowered:
    """Export, build or fetch an engine, and bind it where there is a device.

    Options: `opt=` optimization level, `workspace=` bytes, `sm=` target, `graph=on` CUDA graph, `dynamic` with
    `batches=` and `resolutions=` a profile of shapes.
    """
    _device_index(target)
    dtype = torch_dtype(target.dtype)
    inputs = tuple(cast(example, dtype).contiguous() for example in inputs)
    module = convert(fold_batch_norms(module), dtype)
    path = target.cache / f"{target.key}.onnx"
    if not path.exists():
        dynamic = profiles.dynamic_axes(inputs, target)
        # torch.export takes an axis of length 1 for one that is always 1.
        example = tuple(torch.cat([x, x]) if dynamic and len(x) == 1 else x for x in inputs)
        export(module, example, path, dynamic)
    path = quantize.quantized(path, inputs, target) if target.dtype in QUANTIZED else path
    return lower_file(path, inputs, target)


def lower_file(path: Path, inputs: tuple[Tensor, ...], target: Target) -> Lowered:
    """Lower an ONNX file at its inputs' shapes, these in the graph's order. For int8 and fp8 it is a quantized one."""
    return _quantized(path, inputs, target) if target.dtype in QUANTIZED else _lower_graph(path, inputs, target)


def _quantized(made: Path, inputs: tuple[Tensor, ...], target: Target) -> Lowered:
    """Build a quantized graph's engine, and add which of the engine's products are in it."""
    import onnx

    own = made.with_suffix(f".{target.name}.onnx")
    cache.write(own, quantize.with_float_biases(onnx.load(str(made))).SerializeToString(deterministic=True))
    lowered = _lower_graph(own, inputs, target)
    fields, operators = quantize.described(lowered, made, inputs), Graph.read(own.read_bytes()).operators
    products = proof.quantized_products(lowered.proof["layers"], operators, target.dtype)
    ran = quantize.executed(products, fields["proof"]["kept_in_float"], target.name, target.dtype)
    return replace(lowered, **{**fields, "proof": {**fields["proof"], **ran}})


def _lower_graph(path: Path, inputs: tuple[Tensor, ...], target: Target) -> Lowered:
    index, trt, onnx, start = _device_index(target), build.load(target.name), path.read_bytes(), time.perf_counter()
    graph = Graph.read(onnx)
    feeds = dict(zip(graph.inputs, inputs, strict=True))
    shapes = {name: tuple(example.shape) for name, example in feeds.items()}
    recipe = recipe_of(graph, inputs, target)
    present = index < cuda_driver.device_count()
    with cuda_driver.current(index) if present else contextlib.nullcontext():  # kernels are tried on the current device
        key, content, entry, cached = _built(trt, onnx, graph, recipe)
    varying = {name: shapes[name] for name in recipe.profile}
    lowered = Lowered(
        forward=None,
        read=lambda: _in_onnxruntime(entry["onnx_sha256"], feeds, target)[0],
        build_s=time.perf_counter() - start,
        build_cached=cached,
        artifact_bytes=len(content),
        proof={
            **entry,
            "engine_key": key,
            "shapes": {name: list(shape) for name, shape in shapes.items()},
            "trtexec": _command(trt, cache.engine_path(key), varying, target),
            "engine_bytes": len(content),
        },
        runs_in_torch=False,
        read_all=lambda: _in_onnxruntime(entry["onnx_sha256"], feeds, target),
    )
    if not present:
        return lowered

    def summary(layers: list[proof.Layer], outputs: Mapping[str, object]) -> Proof:
        return {**proof.summarize(layers, graph.operators, outputs), "roles": _roles(layers, graph)}

    engine = Engine(trt, content, shapes, lambda name, _: feeds[name], graph.outputs)
    return _bound(lowered, engine, target, summary, start)


def lower_engine(
    path: Path, content: bytes, shapes: Mapping[str, Shape], feed: Callable[[str, str], Tensor], target: Target
) -> Lowered:
    """Bind a ready engine, `net.plan`, as it is; without a device, only look whether it could be one.

    feed: an input's name and element type -> what it holds. Its running part has never run on a GPU.
    """
    index, trt, start = _device_index(target), build.load(target.name), time.perf_counter()
    entry = {
        "flavour": target.name,
        "tensorrt_version": trt.__version__,
        "source": "ready engine",
        "engine_sha256": cache.sha256(content),
        "engine_bytes": len(content),
        "trtexec": _command(trt, path, shapes, target),
    }
    lowered = Lowered(None, _cannot_be_read, 0.0, artifact_bytes=len(content), proof=entry, runs_in_torch=False)
    if cuda_driver.device_count() <= index:
        _refuse_damaged(trt, content, target.name)
        return lowered
    return _bound(lowered, Engine(trt, content, shapes, feed), target, _summary_without_graph, start)


def _device_index(target: Target) -> int:
    if target.device == "cpu":
        raise Unsupported(f"lowering '{target.name}': engines run on CUDA devices only: use --devices cuda:0")
    return int(target.device.split(":")[1])


def _command(trt: TensorRT, engine: Path, shapes: Mapping[str, Shape], target: Target) -> str:
    """The line for a shell that times this very engine with the program of its flavour."""
    index, graphed = _device_index(target), "graph" in target.options
    return trtexec.command(target.name, trt.__version__, engine, index, shapes, graphed=graphed)


def recipe_of(graph: Graph, inputs: tuple[Tensor, ...], target: Target) -> Recipe:
    options = target.options
    recipe = Recipe(
        flavour=target.name,
        tf32=target.dtype == "tf32",
        profile=profiles.profile(list(graph.inputs), inputs, target),
        level=int(options["opt"]) if "opt" in options else None,
        workspace=parse_bytes(options["workspace"]) if "workspace" in options else None,
        target=options.get("sm"),
        device=cuda_driver.device_name(_device_index(target)),
    )
    profiles.check_profile(graph.inputs, recipe.profile)
    return recipe


def _built(trt: TensorRT, onnx: bytes, graph: Graph, recipe: Recipe) -> tuple[str, bytes, Proof, bool]:
    """The key of an engine in the cache, its content and proof, and whether it was there already."""
    kept = cache.keep_graph(onnx)
    key = recipe.key(kept.stem, trt.__version__)
    stored, warning = cache.fetch(key)
    cached = stored is not None
    if stored is None:
        built = build.build(trt, onnx, recipe)
        cache.store(key, built.engine, _proof_of(built, graph, recipe, trt, kept.stem))
        stored = cache.fetch(key)[0]
        assert stored is not None, "an engine that was just stored"
    content, entry = stored
    return key, content, {**entry, **({"warning": warning} if warning else {})}, cached


def _proof_of(built: build.Build, graph: Graph, recipe: Recipe, trt: TensorRT, onnx_sha256: str) -> Proof:
    """The proof that is stored beside an engine: whenever the engine is fetched again, it stays."""
    layers = proof.parse_layers(proof.layers_text(built.lines))
    return {
        "flavour": recipe.flavour,
        "tensorrt_version": trt.__version__,
        "source": "builder log",
        "onnx_sha256": onnx_sha256,
        "profile": {name: [list(shape) for shape in shapes] for name, shapes in recipe.profile.items()},
        "engine_build_s": built.build_s,
        **proof.memory_of(built.lines),
        **proof.summarize(layers, graph.operators, graph.outputs),
        "roles": _roles(layers, graph),
    }


def _roles(layers: list[proof.Layer], graph: Graph) -> dict[str, str]:
    return {layer.name: graph.role_of(layer.nodes) for layer in layers}


def _summary_without_graph(layers: list[proof.Layer], outputs: Mapping[str, object]) -> Proof:
    """Operators are those of an ONNX graph, which a ready engine comes without."""
    unknown = dict.fromkeys(("attentions", "fused_attentions", "product_dtypes"))
    return {**proof.summarize(layers, {}, outputs), **unknown}


def _bound(
    lowered: Lowered,
    engine: Engine,
    target: Target,
    summary: Callable[[list[proof.Layer], Mapping[str, object]], Proof],
    start: float,
) -> Lowered:
    """An engine bound on its device. start: when its building began."""

    def feeds(loaded: Any) -> dict[str, run.Bytes]:
        return {name: raw_bytes(engine.feed(name, dtype_of(loaded, name))) for name in engine.shapes}

    graphed = "graph" in target.options
    runner = run.Runner(engine.trt, engine.content, _device_index(target), feeds, engine.shapes, graph=graphed)
    layers = proof.parse_layers(runner.inspect())
    inspected = {**summary(layers, runner.outputs), "source": "engine inspector"} if layers else {}
    return replace(
        lowered,
        forward=runner.forward,
        read=lambda: outputs_of(runner, engine.outputs)[0],
        build_s=time.perf_counter() - start,
        proof={**lowered.proof, **inspected, "activation_bytes": runner.activation_bytes, "cuda_graph": graphed},
        device=runner.device,
        layer_times=runner.layer_times,
        close=runner.close,
        read_all=lambda: outputs_of(runner, engine.outputs),
    )


def outputs_of(runner: run.Runner, names: Iterable[str] | None = None) -> list[Tensor]:
    """Every output of one forward, on the CPU."""
    content = runner.read()
    return [
        torch.frombuffer(bytearray(content[name]), dtype=getattr(torch, dtype_of(runner.engine, name))).view(
            runner.outputs[name][0]
        )
        for name in names or runner.outputs
    ]


def dtype_of(engine: Any, name: str) -> str:
    """The element type of an engine's input or output, as torch names it."""
    dtype = str(engine.get_tensor_dtype(name)).rsplit(".", 1)[-1]
    if dtype not in DTYPES:
        raise Unsupported(f"got element type {dtype} of '{name}', expected one of {', '.join(DTYPES)}")
    return DTYPES[dtype]


def raw_bytes(tensor: Tensor) -> run.Bytes:
    """A CPU tensor's content as numpy bytes: numpy has no bfloat16."""
    return tensor.contiguous().view(-1).view(torch.uint8).numpy()


def _in_onnxruntime(onnx_sha256: str, feeds: Mapping[str, Tensor], target: Target) -> list[Tensor]:
    """The graph's outputs as onnxruntime computes them on the CPU. Unsupported where it refuses the graph."""
    session = session_of(cache.folder() / "onnx" / f"{onnx_sha256}.onnx", "cpu", target.threads)
    try:
        outputs = session.run(None, {name: example.numpy() for name, example in feeds.items()})
    except Exception as error:  # onnxruntime raises classes of its own, one for each status code
        raise Unsupported(f"onnxruntime: {first_line(error)}") from error
    return [torch.from_numpy(output) for output in outputs]


def _cannot_be_read() -> Tensor:
    raise Unsupported("a ready engine runs on its device only")


def _refuse_damaged(trt: TensorRT, engine: bytes, flavour: str) -> None:
    """Let TensorRT try: without a device it gets as far as missing one, unless the file is none of its engines.

    Tried with TensorRT-RTX only. Damage beyond the engine's outline shows on a device alone.
    """
    log = build.messages(trt)
    loaded = trt.Runtime(log).deserialize_cuda_engine(engine)
    reason = log.errors().split(" | ")[0]  # what follows is the missing device in any case
    if loaded is None and reason and not re.search(NO_DEVICE, reason):
        raise Unsupported(f"{flavour}: this is no engine that it takes: {reason}"[:500])
