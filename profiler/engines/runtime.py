"""Run an engine through pycuda on the primary context; torch's CUDA stays untouched. Never run on a GPU yet."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from profiler.types import Unavailable, Unsupported

WARM_UPS = 20  # before layers are timed
Bytes = np.ndarray  # of uint8: numpy has no bfloat16, and a buffer needs no type


def device_count() -> int:
    """CUDA devices of this machine, asked of the driver itself; 0 without one."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def device_name(index: int) -> str | None:
    """The model of CUDA device `index`, asked of the driver itself; None where there is no such device."""
    if index >= device_count():
        return None
    driver, handle, name = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(0), ctypes.create_string_buffer(256)
    if driver.cuDeviceGet(ctypes.byref(handle), index) != 0 or driver.cuDeviceGetName(name, len(name), handle) != 0:
        return None
    return name.value.decode()


@dataclass(frozen=True)
class CudaStream:
    """What sampling needs of a stream: events, the time between two, waiting, and a flush of the L2 cache."""

    stream: Any
    driver: Any
    l2_bytes: int

    def event(self) -> Any:
        """An event recorded now."""
        found = self.driver.Event()
        found.record(self.stream)
        return found

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        return float(begin.time_till(end))

    def synchronize(self) -> None:
        self.stream.synchronize()

    def flusher(self) -> Callable[[], object]:
        """Copies twice the L2 cache from one place to another, which leaves nothing else in it."""
        size = 2 * self.l2_bytes
        source, target = self.driver.mem_alloc(size), self.driver.mem_alloc(size)
        return lambda: self.driver.memcpy_dtod_async(target, source, size, self.stream)


class Runner:
    """An engine with its buffers bound, ready to be enqueued.

    inputs: name -> bytes of a contiguous array, or what makes these once the engine is loaded and can tell its element
    types; shapes: name -> its shape. Everything is freed by `close`, in order.
    """

    def __init__(
        self, trt: Any, engine: bytes, index: int, inputs: Mapping[str, Bytes] | Callable[[Any], Mapping[str, Bytes]],
        shapes: Mapping[str, tuple[int, ...]], log: Any, *, graph: bool = False,
    ):  # fmt: skip
        try:
            import pycuda.driver as driver
        except ImportError as error:
            raise Unavailable(f"an engine runs through pycuda: pip install 'mixprof[cuda]' ({error})") from error
        self._held = contextlib.ExitStack()
        try:
            driver.init()
            device = driver.Device(index)
            context = device.retain_primary_context()
            context.push()
            self._held.callback(context.pop)
            self.driver, self.log = driver, log
            runtime = trt.Runtime(log)
            self.engine = runtime.deserialize_cuda_engine(engine)
            if self.engine is None:
                raise Unsupported(f"this device does not take the engine: {log.errors()}")
            self.context = self._execution_context(trt, graph)
            attribute = driver.device_attribute.L2_CACHE_SIZE
            self.stream = CudaStream(driver.Stream(), driver, int(device.get_attribute(attribute)))
            self._buffers = self._bind(trt, inputs(self.engine) if callable(inputs) else inputs, shapes)
            self._graph = None if not graph or self._captures_itself else _capture(self.stream, self._enqueue)
        except BaseException:
            self.close()
            raise

    def _execution_context(self, trt: Any, graph: bool) -> Any:
        """TensorRT-RTX captures its graphs by itself, asked for in a runtime configuration."""
        self._captures_itself = graph and hasattr(trt, "CudaGraphStrategy")
        if not self._captures_itself:
            return self.engine.create_execution_context()
        configuration = self.engine.create_runtime_config()
        configuration.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        return self.engine.create_execution_context(configuration)

    def _bind(self, trt: Any, inputs: Mapping[str, Bytes], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        buffers: dict[str, Any] = {}
        for name, content in inputs.items():
            if not self.context.set_input_shape(name, shapes[name]):
                raise Unsupported(f"the engine does not take {shapes[name]} for '{name}': {self.log.errors()}")
            buffers[name] = self.driver.mem_alloc(content.nbytes)
            self.driver.memcpy_htod(buffers[name], content)
        if missing := self.context.infer_shapes():
            raise Unsupported(f"the engine needs more inputs: {', '.join(missing)}")
        self.outputs: dict[str, tuple[tuple[int, ...], int]] = {}  # name -> shape, bytes
        for index in range(self.engine.num_io_tensors):
            name = self.engine.get_tensor_name(index)
            if self.engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT:
                shape = tuple(self.context.get_tensor_shape(name))
                size = int(np.prod(shape)) * self.engine.get_tensor_dtype(name).itemsize
                self.outputs[name] = (shape, size)
                buffers[name] = self.driver.mem_alloc(size)
        for name, buffer in buffers.items():
            self.context.set_tensor_address(name, int(buffer))
        return buffers

    def _enqueue(self) -> None:
        if not self.context.execute_async_v3(self.stream.stream.handle):
            raise RuntimeError(f"the engine was not enqueued: {self.log.errors()}")

    def forward(self) -> None:
        """Enqueue one forward."""
        if self._graph is None:
            self._enqueue()
        else:
            self._graph()

    def read(self) -> dict[str, Bytes]:
        """Run one forward into poisoned buffers and fetch every output, as bytes."""
        for name, (_, size) in self.outputs.items():
            self.driver.memset_d8(self._buffers[name], 0xFF, size)  # NaN in every float type
        self.forward()
        self.stream.synchronize()
        found = {name: np.empty(size, np.uint8) for name, (_, size) in self.outputs.items()}
        for name, content in found.items():
            self.driver.memcpy_dtoh(content, self._buffers[name])
        return found

    def layer_times(self, trt: Any, forwards: int) -> list[tuple[str, float]]:
        """Milliseconds of each layer, mean over forwards, by TensorRT's profiler: it slows the engine down.

        Forwards before it is attached load kernels, which TensorRT-RTX compiles at first use.
        """
        totals: dict[str, float] = {}
        for _ in range(WARM_UPS):
            self._enqueue()
        self.stream.synchronize()

        class LayerTimes(trt.IProfiler):
            def __init__(self) -> None:
                trt.IProfiler.__init__(self)

            def report_layer_time(self, name: str, ms: float) -> None:
                totals[name] = totals.get(name, 0.0) + ms

        profiler = self.context.profiler = LayerTimes()
        for _ in range(forwards):
            self._enqueue()
            self.stream.synchronize()
        assert profiler is not None
        return [(name, total / forwards) for name, total in totals.items()]

    def inspect(self, trt: Any) -> str:
        """The engine inspector's text, a line a layer."""
        inspector = self.engine.create_engine_inspector()
        return str(inspector.get_engine_information(trt.LayerInformationFormat.ONELINE))

    @property
    def activation_bytes(self) -> int:
        sizes: Sequence[str] = ("device_memory_size_v2", "device_memory_size")
        return next(int(getattr(self.engine, name)) for name in sizes if hasattr(self.engine, name))

    def close(self) -> None:
        """Free graph, context, engine and buffers, then leave the device's context."""
        for name in ("_graph", "context", "engine", "_buffers", "stream"):
            if hasattr(self, name):
                delattr(self, name)
        self._held.close()


def _capture(stream: CudaStream, enqueue: Callable[[], None]) -> Callable[[], None]:
    """A CUDA graph of one forward, through NVIDIA's own bindings: pycuda has none."""
    try:
        from cuda.bindings import driver as cuda
    except ImportError as error:
        raise Unavailable(f"lowering 'tensorrt:graph=on': pip install cuda-bindings ({error})") from error

    def checked(result: tuple[Any, ...]) -> Any:
        if result[0] != cuda.CUresult.CUDA_SUCCESS:
            raise RuntimeError(f"CUDA graph: {result[0]}")
        return result[1] if len(result) > 1 else None

    enqueue()
    stream.synchronize()
    handle = cuda.CUstream(stream.stream.handle)
    checked(cuda.cuStreamBeginCapture(handle, cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL))
    enqueue()
    executable = checked(cuda.cuGraphInstantiate(checked(cuda.cuStreamEndCapture(handle)), 0))
    return lambda: checked(cuda.cuGraphLaunch(executable, handle))
