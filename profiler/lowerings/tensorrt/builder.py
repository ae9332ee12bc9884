"""From an ONNX graph to a serialized engine: strongly typed, one optimization profile, no device needed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mixprof.data import cache
from mixprof.data.errors import Unsupported
from mixprof.data.types import digest
from mixprof.lowerings.tensorrt.flavours import messages

if TYPE_CHECKING:
    import tensorrt as stubs

    from mixprof.lowerings.tensorrt.flavours import Messages, TensorRT

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Recipe:
    """What decides an engine beside its graph."""

    flavour: str  # "tensorrt" or "tensorrt_rtx"
    tf32: bool
    profile: dict[str, tuple[Shape, Shape, Shape]] = field(default_factory=dict)  # dynamic input -> min, opt, max
    level: int | None = None  # of optimization, 0 to 5; None leaves TensorRT's own
    workspace: int | None = None  # bytes; None leaves TensorRT's own
    target: str | None = None  # compute capability like "89", TensorRT-RTX only; None: the device here, or any
    device: str | None = None  # the model of GPU that it is built on; None where there is none

    def key(self, onnx_sha256: str, version: str) -> str:
        """Names the engine of a graph: equal for equal graphs, recipes and versions of TensorRT."""
        fields = {**self.__dict__, "profile": {name: list(map(list, each)) for name, each in self.profile.items()}}
        return digest([fields, onnx_sha256, version])


@dataclass(frozen=True)
class Build:
    """A serialized engine and what was said while it was built."""

    engine: bytes
    lines: tuple[tuple[str, str], ...]
    build_s: float


def check_profile(
    inputs: Mapping[str, Sequence[int | str | None]], profile: Mapping[str, tuple[Shape, Shape, Shape]]
) -> None:
    """Raise Unsupported for a profile that TensorRT would take without a word and build something else from.

    inputs: name -> shape of the graph, a number for each static axis.
    """
    for name, (least, best, most) in profile.items():
        if name not in inputs:
            raise Unsupported(f"got a profile for input '{name}', expected one of {', '.join(inputs)}")
        shape = inputs[name]
        if {len(least), len(best), len(most)} != {len(shape)}:
            raise Unsupported(f"got a profile of {len(best)} axes for input '{name}', expected {len(shape)}")
        for axis, (low, middle, high) in enumerate(zip(least, best, most, strict=True)):
            if not low <= middle <= high:
                raise Unsupported(
                    f"got {low}, {middle}, {high} as minimum, optimum, maximum of axis {axis} of '{name}', "
                    "expected them in rising order"
                )
            if isinstance(shape[axis], int) and {low, high} != {shape[axis]}:
                raise Unsupported(
                    f"got {low} to {high} for axis {axis} of '{name}', which the graph fixes at {shape[axis]}"
                )


def build(trt: TensorRT, onnx: bytes, recipe: Recipe) -> Build:
    """Build an engine. Unsupported, in TensorRT's own words, where it refuses the graph or fails to build it."""
    start = time.perf_counter()
    log = messages(trt)
    builder = trt.Builder(log)
    network = builder.create_network(_network_flags(trt))
    _parse(trt, onnx, network, log)
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    _configure(trt, config, recipe)
    if recipe.profile:
        profile = builder.create_optimization_profile()
        for name, shapes in recipe.profile.items():
            profile.set_shape(name, *(trt.Dims(list(shape)) for shape in shapes))
        config.add_optimization_profile(profile)
    timings = _with_timing_cache(trt, config, recipe)
    engine = builder.build_serialized_network(network, config)
    timings()
    if engine is None:
        raise Unsupported(f"{recipe.flavour}: no engine was built: {log.errors() or 'without a reason'}")
    return Build(bytes(memoryview(engine)), tuple(log.lines), time.perf_counter() - start)


def _network_flags(trt: TensorRT) -> int:
    """Precision comes from the graph alone, on every flavour; TensorRT 11 takes that for granted."""
    flags = trt.NetworkDefinitionCreationFlag
    names = [name for name in ("STRONGLY_TYPED", "EXPLICIT_BATCH") if hasattr(flags, name)]
    return sum(1 << int(getattr(flags, name)) for name in names)


def _configure(trt: TensorRT, config: stubs.IBuilderConfig, recipe: Recipe) -> None:
    if hasattr(trt.BuilderFlag, "TF32"):
        (config.set_flag if recipe.tf32 else config.clear_flag)(trt.BuilderFlag.TF32)
    if recipe.level is not None:
        config.builder_optimization_level = recipe.level
    if recipe.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, recipe.workspace)
    if recipe.target is not None:
        if (
            not hasattr(trt, "ComputeCapability")
            or not hasattr(config, "num_compute_capabilities")
            or not hasattr(config, "set_compute_capability")
        ):
            raise Unsupported(f"{recipe.flavour}: builds for the GPU at hand only: leave out sm={recipe.target}")
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{recipe.target}"), 0)


def _with_timing_cache(trt: TensorRT, config: stubs.IBuilderConfig, recipe: Recipe) -> Callable[[], None]:
    """Give the builder what it timed before; what is returned keeps what it timed now.

    TensorRT checks by itself that a cache is of this device and version. TensorRT-RTX times nothing while it builds.
    """
    if recipe.flavour != "tensorrt" or not hasattr(config, "create_timing_cache"):
        return lambda: None
    path = cache.own_folder(cache.folder() / "timings") / f"{recipe.flavour}-{trt.__version__}.cache"
    timings = config.create_timing_cache(path.read_bytes() if path.exists() else b"")
    if timings is None:  # damaged: begin anew
        timings = config.create_timing_cache(b"")
    config.set_timing_cache(timings, False)
    return lambda: cache.write(path, bytes(memoryview(config.get_timing_cache().serialize())))


def _parse(trt: TensorRT, onnx: bytes, network: stubs.INetworkDefinition, log: Messages) -> None:
    parser = trt.OnnxParser(network, log)
    if parser.parse(onnx):
        return
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    said = " | ".join(dict.fromkeys(_refusal(error, onnx) for error in errors))
    raise Unsupported(f"tensorrt's ONNX parser: {said or log.errors()}"[:800])


def _refusal(error: stubs.ParserError, onnx: bytes) -> str:
    """The operator, the module it comes from and what the parser says of it."""
    import onnx as onnx_package

    nodes = {node.name: node for node in onnx_package.load_from_string(onnx).graph.node}
    name = error.node_name()
    where = _module_of(nodes[name]) if name in nodes else ""
    operator = error.node_operator() or (nodes[name].op_type if name in nodes else "")
    said = " ".join(str(error.desc()).split())
    return f"operator {operator} ({name}{f' in {where}' if where else ''}): {said}" if operator else said


def _module_of(node: Any) -> str:
    """The class of the module that an exported node comes from, with its path; "" where the exporter did not say."""
    found = {prop.key: prop.value for prop in node.metadata_props}
    try:
        scopes = json.loads(found.get("pkg.torch.onnx.name_scopes", "[]").replace("'", '"'))
        classes = json.loads(found.get("pkg.torch.onnx.class_hierarchy", "[]").replace("'", '"'))
    except ValueError:
        return ""
    if len(classes) < 2:
        return ""
    path = scopes[-2] if len(scopes) > 1 else ""
    return f"{classes[-2].rsplit('.', 1)[-1]}" + (f" '{path}'" if path else "")
