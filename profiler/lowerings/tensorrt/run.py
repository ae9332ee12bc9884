"""Run an engine through CUDA's driver on the primary context; torch's CUDA stays untouched. Never run on a GPU yet."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mixprof.data.errors import Unsupported
from mixprof.lowerings.tensorrt.build import messages
from mixprof.machine.devices import Call
from mixprof.machine.devices.engine import EngineDevice

if TYPE_CHECKING:
    import tensorrt as stubs

    from mixprof.lowerings.tensorrt.build import TensorRT

WARM_UPS = 20  # before layers are timed
Bytes = np.ndarray  # of uint8: numpy has no bfloat16, and a buffer needs no type
Shape = tuple[int, ...]
Inputs = Mapping[str, Bytes] | Callable[[Any], Mapping[str, Bytes]]


class Runner:
    """An engine with its buffers bound, ready to be enqueued.

    inputs: name -> bytes of a contiguous array, or what makes these once the engine is loaded and can tell its element
    types; shapes: name -> its shape. `close` waits for what is enqueued and frees everything in order. MemoryError
    where the device is too small, Unsupported where TensorRT refuses.
    """

    def __init__(
        self, trt: TensorRT, engine: bytes, index: int, inputs: Inputs, shapes: Mapping[str, Shape], *, graph: bool
    ):
        self.trt, self.log = trt, messages(trt)
        self._replay: Call | None = None
        self._cleanup = contextlib.ExitStack()  # unwound from its end: the context is left last
        try:
            self._enter(index)
            self._load(trt, engine)
            self.context = self._execution_context(trt, graph)
            content = inputs(self.engine) if callable(inputs) else inputs
            self._buffers = {**self._bind_inputs(trt, content, shapes), **self._bind_outputs(trt)}
            self._set_addresses()
            self._enqueue()  # kernels that are compiled or loaded when first used are ready after it
            self.device.synchronize()
            if graph and not hasattr(trt, "CudaGraphStrategy"):
                self._capture()
        except BaseException:
            with contextlib.suppress(Exception):  # what failed first is what is told
                self.close()
            raise

    def _enter(self, index: int) -> None:
        self.device = EngineDevice(index)
        self._cleanup.callback(self.device.close)
        self._cleanup.callback(self._drop)
        self._cleanup.callback(self.device.synchronize)
        self._cleanup.callback(self.device.free_graphs)

    def _load(self, trt: TensorRT, engine: bytes) -> None:
        runtime = trt.Runtime(self.log)
        loaded = runtime.deserialize_cuda_engine(engine)
        if loaded is None:
            why = ""
            if hasattr(runtime, "get_engine_validity"):  # of TensorRT-RTX
                validity, diagnostics = runtime.get_engine_validity(engine)
                why = f" ({validity}, diagnostics {diagnostics})"
            raise self._refusal(f"this device does not take the engine{why}")
        self.engine = loaded

    def _refusal(self, what: str) -> Exception:
        """What to raise: TensorRT tells of every failure alike, in its log."""
        reason = self.log.errors()
        short_of_memory = any(words in reason.lower() for words in ("out of memory", "outofmemory"))
        return (MemoryError if short_of_memory else Unsupported)(f"{what}: {reason or 'without a reason'}")

    def _execution_context(self, trt: TensorRT, graph: bool) -> stubs.IExecutionContext:
        """TensorRT-RTX compiles kernels and captures graphs by itself, as a configuration of it says."""
        if hasattr(trt, "CudaGraphStrategy"):
            configuration: Any = self.engine.create_runtime_config()
            strategies = trt.CudaGraphStrategy
            configuration.cuda_graph_strategy = strategies.WHOLE_GRAPH_CAPTURE if graph else strategies.DISABLED
            if hasattr(trt, "DynamicShapesKernelSpecializationStrategy"):
                # Not lazily: kernels would be exchanged for faster ones while they are timed.
                eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
                configuration.dynamic_shapes_kernel_specialization_strategy = eager
            context = self.engine.create_execution_context(configuration)
        else:
            context = self.engine.create_execution_context()
        if context is None:
            raise self._refusal("no execution context was made")
        # Engines are built with detailed names for the inspector, which NVTX would announce at each enqueue.
        context.nvtx_verbosity = trt.ProfilingVerbosity.LAYER_NAMES_ONLY  # as trtexec has it
        return context

    def _bind_inputs(self, trt: TensorRT, inputs: Mapping[str, Bytes], shapes: Mapping[str, Shape]) -> dict[str, Any]:
        buffers = {}
        for name, content in inputs.items():
            if self.engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
                raise Unsupported(f"the engine reads '{name}' on the host: only inputs on the device can be bound")
            if not self.context.set_input_shape(name, shapes[name]):
                raise self._refusal(f"the engine does not take {shapes[name]} for '{name}'")
            if content.nbytes != (needed := self._nbytes(name, shapes[name])):
                raise Unsupported(f"got {content.nbytes} bytes for '{name}', expected {needed}: its type is another")
            buffers[name] = self.device.allocate(content.nbytes)
            self.device.upload(buffers[name], content)
        if missing := self.context.infer_shapes():
            raise Unsupported(f"the engine needs more inputs: {', '.join(missing)}")
        return buffers

    def _bind_outputs(self, trt: TensorRT) -> dict[str, Any]:
        names = [self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)]
        self.outputs: dict[str, tuple[Shape, int]] = {}  # name -> shape, bytes
        for name in names:
            if self.engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT:
                shape: Shape = self.context.get_tensor_shape(name)[:]
                if min(shape, default=0) < 0:
                    raise Unsupported(f"the shape of '{name}', {shape}, depends on the input's values: not supported")
                self.outputs[name] = (shape, self._nbytes(name, shape))
        return {name: self.device.allocate(size) for name, (_, size) in self.outputs.items()}

    def _nbytes(self, name: str, shape: Shape) -> int:
        return math.ceil(math.prod(shape) * self.engine.get_tensor_dtype(name).itemsize)

    def _set_addresses(self) -> None:
        for name, buffer in self._buffers.items():
            if not self.context.set_tensor_address(name, int(buffer)):
                raise self._refusal(f"the engine does not take a buffer for '{name}'")

    def _capture(self) -> None:
        try:
            self._replay = self.device.capture(self._enqueue)
        except RuntimeError as error:
            raise Unsupported(f"graph=on: this engine cannot be captured: {error}") from error

    def _enqueue(self) -> None:
        if not self.context.execute_async_v3(self.device.handle):
            raise RuntimeError(f"the engine was not enqueued: {self.log.errors()}")

    def forward(self) -> None:
        """Enqueue one forward."""
        (self._replay or self._enqueue)()

    def read(self) -> dict[str, Bytes]:
        """Run one forward into poisoned buffers and fetch every output, as bytes."""
        for name, (_, size) in self.outputs.items():
            self.device.fill(self._buffers[name], 0xFF, size)  # NaN in any float
        self.forward()
        self.device.synchronize()
        return {name: self.device.download(self._buffers[name], size) for name, (_, size) in self.outputs.items()}

    def layer_times(self, forwards: int) -> list[tuple[str, float]]:
        """Milliseconds of each layer, mean over forwards, by TensorRT's profiler: it slows the engine down.

        Forwards before it is attached bring the device to its pace.
        """
        totals: dict[str, float] = {}
        for _ in range(WARM_UPS):
            self._enqueue()
        self.device.synchronize()

        package: Any = self.trt  # no attribute of a protocol is a base class to mypy

        class LayerTimes(package.IProfiler):
            def __init__(self) -> None:
                package.IProfiler.__init__(self)

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                totals[layer_name] = totals.get(layer_name, 0.0) + ms

        profiler = self.context.profiler = LayerTimes()
        for _ in range(forwards):
            self._enqueue()
            self.device.synchronize()
        assert profiler is not None
        return [(name, total / forwards) for name, total in totals.items()]

    def inspect(self) -> str:
        """The engine inspector's text, a line a layer; with the shapes of this context, if they are dynamic."""
        inspector = self.engine.create_engine_inspector()
        inspector.execution_context = self.context
        return str(inspector.get_engine_information(self.trt.LayerInformationFormat.ONELINE))

    @property
    def activation_bytes(self) -> int:
        """Device memory of an execution context."""
        if not hasattr(self.engine, "device_memory_size_v2"):  # TensorRT 10.0; later ones drop the old name
            return int(self.engine.device_memory_size)
        return int(self.engine.device_memory_size_v2)

    def close(self) -> None:
        """Wait, free graph, execution context, engine, buffers and stream, leave the device's context; once."""
        self._cleanup.close()

    def _drop(self) -> None:
        """In this order: what was made from another goes before it."""
        self._replay = None
        for name in ("context", "engine", "_buffers"):
            self.__dict__.pop(name, None)
