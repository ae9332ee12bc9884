"""TensorRT's two packages, and an ONNX graph turned into a serialized engine: strongly typed, no device needed."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

from mixprof.data import cache
from mixprof.data.errors import Unavailable, Unsupported
from mixprof.data.json import digest
from mixprof.lowerings import LOWERINGS, is_installed
from mixprof.lowerings.roles import exporter_notes
from mixprof.lowerings.tensorrt.profiles import Profile

if TYPE_CHECKING:
    import tensorrt as stubs

    class Messages(stubs.ILogger):
        """A logger that keeps what TensorRT says: (severity, text), severity "ERROR", "WARNING", …"""

        lines: list[tuple[str, str]]

        def errors(self) -> str: ...  # what went wrong, in TensorRT's own words, on one line

    class Names(Protocol):
        """Of the module of either flavour, what both have: mypy holds it against the stubs of TensorRT 10.

        What one flavour alone has is asked for with `hasattr`, which mypy takes for an answer.
        """

        Builder: type[stubs.Builder]
        BuilderFlag: type[stubs.BuilderFlag]
        Dims: type[stubs.Dims]
        LayerInformationFormat: type[stubs.LayerInformationFormat]
        MemoryPoolType: type[stubs.MemoryPoolType]
        NetworkDefinitionCreationFlag: type[stubs.NetworkDefinitionCreationFlag]
        OnnxParser: type[stubs.OnnxParser]
        ProfilingVerbosity: type[stubs.ProfilingVerbosity]
        Runtime: type[stubs.Runtime]
        TensorIOMode: type[stubs.TensorIOMode]
        TensorLocation: type[stubs.TensorLocation]

    class TensorRT(Names, Protocol):
        @property
        def __version__(self) -> str: ...  # no name of a protocol that mypy asks of a module

    _checked_by_mypy: Names = stubs


def load(name: str) -> TensorRT:
    """The package "tensorrt" or "tensorrt_rtx"; Unavailable with the command that installs it."""
    if not is_installed(name):
        raise Unavailable(f"lowering '{name}': {name} is not installed: {LOWERINGS[name].install}")
    try:
        return cast("TensorRT", importlib.import_module(name))
    except ImportError as error:
        raise Unavailable(
            f"lowering '{name}': {name} cannot be imported ({error}): {LOWERINGS[name].install}"
        ) from error


def messages(trt: TensorRT) -> Messages:
    """A logger of this flavour that keeps what TensorRT says."""
    package: Any = trt  # no attribute of a protocol is a base class to mypy

    class Kept(package.ILogger):
        def __init__(self) -> None:
            package.ILogger.__init__(self)
            self.lines: list[tuple[str, str]] = []

        def log(self, severity: Any, text: str) -> None:
            self.lines.append((str(severity).rsplit(".", 1)[-1], text))

        def errors(self) -> str:
            wrong = [text for severity, text in self.lines if severity in ("ERROR", "INTERNAL_ERROR")]
            return " ".join(" | ".join(dict.fromkeys(wrong)).split())[:800]

    return cast("Messages", Kept())


@dataclass(frozen=True)
class Recipe:
    """What decides an engine beside its graph."""

    flavour: str  # "tensorrt" or "tensorrt_rtx"
    tf32: bool
    profile: Profile = field(default_factory=dict)
    level: int | None = None  # of optimization, 0 to 5; None leaves TensorRT's own
    workspace: int | None = None  # bytes; None leaves TensorRT's own
    target: str | None = None  # compute capability like "89", TensorRT-RTX only; None: the device here, or any
    device: str | None = None  # the model of GPU that it is built on; None where there is none

    def key(self, onnx_sha256: str, version: str) -> str:
        """Names the engine of a graph: equal for equal graphs, recipes and versions of TensorRT."""
        fields = {**self.__dict__, "profile": {name: list(map(list, shapes)) for name, shapes in self.profile.items()}}
        return digest([fields, onnx_sha256, version])


@dataclass(frozen=True)
class Build:
    """A serialized engine and what was said while it was built."""

    engine: bytes
    lines: tuple[tuple[str, str], ...]
    build_s: float


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
    reasons = " | ".join(dict.fromkeys(_refusal(error, onnx) for error in errors))
    raise Unsupported(f"tensorrt's ONNX parser: {reasons or log.errors()}"[:800])


def _refusal(error: stubs.ParserError, onnx: bytes) -> str:
    """The operator, the module it comes from and the parser's words."""
    import onnx as onnx_package

    nodes = {node.name: node for node in onnx_package.load_from_string(onnx).graph.node}
    name, node = error.node_name(), nodes.get(error.node_name())
    where = _module_of(node) if node is not None else ""
    operator = error.node_operator() or (node.op_type if node is not None else "")
    reason = " ".join(str(error.desc()).split())
    return f"operator {operator} ({name}{f' in {where}' if where else ''}): {reason}" if operator else reason


def _module_of(node: Any) -> str:
    """The class of the module that an exported node comes from, with its path; "" where the exporter did not say."""
    scopes, classes = (exporter_notes(node, name) for name in ("name_scopes", "class_hierarchy"))
    if len(classes) < 2:
        return ""
    path = scopes[-2] if len(scopes) > 1 else ""
    return f"{classes[-2].rsplit('.', 1)[-1]}" + (f" '{path}'" if path else "")
