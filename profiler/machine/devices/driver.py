"""The calls of CUDA's driver that an engine needs, by NVIDIA's bindings or by pycuda: either serves.

Both enter the primary context of a device, which torch's would be, and leave it again. Never run on a GPU yet.
"""

from __future__ import annotations

import contextlib
from typing import Any, Protocol

import numpy as np

from mixprof.data.errors import Unavailable


class Driver(Protocol):
    """A device's context that is current until `leave`. Streams, events, memory and kernels are the library's own."""

    l2_bytes: int

    def stream(self) -> Any: ...

    def handle(self, stream: Any) -> int: ...  # its address, for TensorRT

    def synchronize(self, stream: Any) -> None: ...

    def event(self, stream: Any) -> Any: ...  # recorded now

    def is_done(self, event: Any) -> bool: ...

    def elapsed_ms(self, begin: Any, end: Any) -> float: ...

    def allocate(self, size: int) -> Any: ...  # int() of it is the address

    def upload(self, memory: Any, content: np.ndarray) -> None: ...

    def download(self, content: np.ndarray, memory: Any) -> None: ...

    def fill(self, memory: Any, byte: int, size: int, stream: Any) -> None: ...

    def kernel(self, ptx: bytes, name: str) -> Any: ...

    def launch(self, kernel: Any, blocks: int, threads: int, stream: Any, *values: int) -> None: ...  # of 64 bit

    def leave(self) -> None: ...


def enter(index: int) -> Driver:
    """The driver with the primary context of that device current. Unavailable without a library to call it with."""
    try:
        from cuda.bindings import driver
    except ImportError:
        pass
    else:
        return Bindings(driver, index)
    try:
        import pycuda.driver
    except ImportError as error:
        reason = f"an engine runs through cuda-bindings or pycuda: pip install 'mixprof[cuda]' ({error})"
        raise Unavailable(reason) from error
    return Pycuda(pycuda.driver, index)


class _Freed:
    """What the driver made, destroyed with its last reference."""

    def __init__(self, made: Any, destroy: Any):
        self.made, self.destroy = made, destroy

    def __int__(self) -> int:
        return int(self.made)

    def __del__(self) -> None:
        self.destroy(self.made)  # after the context was left this returns an error, and the context took it along


class Bindings:
    """Over cuda.bindings."""

    def __init__(self, cuda: Any, index: int):
        self._cuda = cuda
        self._checked(cuda.cuInit(0))
        self._device = self._checked(cuda.cuDeviceGet(index))
        self._checked(cuda.cuCtxPushCurrent(self._checked(cuda.cuDevicePrimaryCtxRetain(self._device))))
        attribute = cuda.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE
        self.l2_bytes = int(self._checked(cuda.cuDeviceGetAttribute(attribute, self._device)))
        self._modules: list[Any] = []

    def _checked(self, result: tuple[Any, ...]) -> Any:
        """What a call returned beside its status. MemoryError, or RuntimeError, with the name of another status."""
        codes = self._cuda.CUresult
        if result[0] == codes.CUDA_ERROR_OUT_OF_MEMORY:
            raise MemoryError("CUDA driver: out of memory")
        if result[0] != codes.CUDA_SUCCESS:
            raise RuntimeError(f"CUDA driver: {result[0].name}")
        return result[1] if len(result) > 1 else None

    def stream(self) -> Any:
        # A blocking one: what the driver does on its default stream, like copies of inputs, is done before.
        return _Freed(self._checked(self._cuda.cuStreamCreate(0)), self._cuda.cuStreamDestroy)

    def handle(self, stream: Any) -> int:
        return int(stream)

    def synchronize(self, stream: Any) -> None:
        self._checked(self._cuda.cuStreamSynchronize(stream.made))

    def event(self, stream: Any) -> Any:
        event = _Freed(self._checked(self._cuda.cuEventCreate(0)), self._cuda.cuEventDestroy)
        self._checked(self._cuda.cuEventRecord(event.made, stream.made))
        return event

    def is_done(self, event: Any) -> bool:
        result = self._cuda.cuEventQuery(event.made)
        if result[0] == self._cuda.CUresult.CUDA_ERROR_NOT_READY:
            return False
        self._checked(result)
        return True

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        return float(self._checked(self._cuda.cuEventElapsedTime(begin.made, end.made)))

    def allocate(self, size: int) -> Any:
        return _Freed(self._checked(self._cuda.cuMemAlloc(size)), self._cuda.cuMemFree)

    def upload(self, memory: Any, content: np.ndarray) -> None:
        self._checked(self._cuda.cuMemcpyHtoD(memory.made, content.ctypes.data, content.nbytes))

    def download(self, content: np.ndarray, memory: Any) -> None:
        self._checked(self._cuda.cuMemcpyDtoH(content.ctypes.data, memory.made, content.nbytes))

    def fill(self, memory: Any, byte: int, size: int, stream: Any) -> None:
        self._checked(self._cuda.cuMemsetD8Async(memory.made, byte, size, stream.made))

    def kernel(self, ptx: bytes, name: str) -> Any:
        self._modules.append(self._checked(self._cuda.cuModuleLoadData(ptx + b"\0")))
        return self._checked(self._cuda.cuModuleGetFunction(self._modules[-1], name.encode()))

    def launch(self, kernel: Any, blocks: int, threads: int, stream: Any, *values: int) -> None:
        arguments = np.array(values, np.uint64)
        addresses = np.array([arguments[place:].ctypes.data for place in range(len(values))], np.uint64)
        size = (blocks, 1, 1, threads, 1, 1)
        self._checked(self._cuda.cuLaunchKernel(kernel, *size, 0, stream.made, addresses.ctypes.data, 0))

    def leave(self) -> None:
        for module in self._modules:
            self._cuda.cuModuleUnload(module)
        with contextlib.suppress(RuntimeError):  # a context that an error has left unusable
            self._checked(self._cuda.cuCtxPopCurrent())
            self._checked(self._cuda.cuDevicePrimaryCtxRelease(self._device))


class Pycuda:
    """Over pycuda, which frees what it made by itself."""

    def __init__(self, cuda: Any, index: int):
        self._cuda = cuda
        cuda.init()
        device = cuda.Device(index)
        self._context = device.retain_primary_context()
        self._context.push()
        self.l2_bytes = int(device.get_attribute(cuda.device_attribute.L2_CACHE_SIZE))

    def stream(self) -> Any:
        return self._cuda.Stream()

    def handle(self, stream: Any) -> int:
        return int(stream.handle)

    def synchronize(self, stream: Any) -> None:
        stream.synchronize()

    def event(self, stream: Any) -> Any:
        event = self._cuda.Event()
        event.record(stream)
        return event

    def is_done(self, event: Any) -> bool:
        return bool(event.query())

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        return float(begin.time_till(end))

    def allocate(self, size: int) -> Any:
        return self._cuda.mem_alloc(size)

    def upload(self, memory: Any, content: np.ndarray) -> None:
        self._cuda.memcpy_htod(memory, content)

    def download(self, content: np.ndarray, memory: Any) -> None:
        self._cuda.memcpy_dtoh(content, memory)

    def fill(self, memory: Any, byte: int, size: int, stream: Any) -> None:
        self._cuda.memset_d8_async(memory, byte, size, stream)

    def kernel(self, ptx: bytes, name: str) -> Any:
        return self._cuda.module_from_buffer(ptx).get_function(name)

    def launch(self, kernel: Any, blocks: int, threads: int, stream: Any, *values: int) -> None:
        kernel(*map(np.uint64, values), grid=(blocks, 1), block=(threads, 1, 1), stream=stream)

    def leave(self) -> None:
        self._context.pop()
