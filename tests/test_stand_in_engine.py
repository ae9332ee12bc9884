"""The engine runner whole, over the fake driver and an engine that is a copy: y is x, on the driver's stream."""

import pytest

from fake_driver import ask, needs_bindings

pytestmark = needs_bindings
STAND_IN = """
import ctypes
import enum
import types
import numpy as np
from mixprof.data.errors import Unsupported
from mixprof.lowerings.tensorrt import run

libcuda = ctypes.CDLL("libcuda.so.1")
SHAPE = (2, 3)

class Logger:
    class Severity(enum.IntEnum):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)
    def __init__(self):
        pass

class Context:
    nvtx_verbosity = None
    def __init__(self):
        self.addresses, self.shapes = {}, {}
    def set_input_shape(self, name, shape):
        self.shapes[name] = shape
        return shape == SHAPE
    def infer_shapes(self):
        return [] if "x" in self.shapes else ["x"]
    def get_tensor_shape(self, name):
        return SHAPE
    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True
    def execute_async_v3(self, stream):
        copy = libcuda.cuMemcpyDtoDAsync_v2
        arguments = (self.addresses["y"], self.addresses["x"])
        return copy(*map(ctypes.c_uint64, arguments), ctypes.c_size_t(24), ctypes.c_void_p(stream)) == 0

class Engine:
    num_io_tensors = 2
    device_memory_size_v2 = 0
    def get_tensor_name(self, index):
        return "xy"[index]
    def get_tensor_location(self, name):
        return "device"
    def get_tensor_mode(self, name):
        return {"x": "input", "y": "output"}[name]
    def get_tensor_dtype(self, name):
        return types.SimpleNamespace(itemsize=4)
    def create_execution_context(self):
        return Context()

class Runtime:
    def __init__(self, log):
        pass
    def deserialize_cuda_engine(self, content):
        return Engine() if content == b"engine" else None

trt = types.SimpleNamespace(
    ILogger=Logger, Logger=Logger, Runtime=Runtime, TensorLocation=types.SimpleNamespace(DEVICE="device"),
    TensorIOMode=types.SimpleNamespace(OUTPUT="output"),
    ProfilingVerbosity=types.SimpleNamespace(LAYER_NAMES_ONLY=1, DETAILED=2),
)
content = np.arange(6, dtype=np.float32).view(np.uint8)

def runner(engine=b"engine", inputs=content, shape=SHAPE, index=0, graph=False):
    return run.Runner(trt, engine, index, {"x": inputs}, {"x": shape}, graph=graph)

def refusal(**changed):
    try:
        runner(**changed).close()
    except Exception as error:
        return [type(error).__name__, str(error), libcuda.fake_live(), libcuda.fake_current_device()]
"""


@pytest.mark.parametrize("graph", [False, True])
def test_an_engine_runs_is_timed_and_leaves_nothing_behind(graph):
    code = f"""{STAND_IN}
ran = runner(index=1, graph={graph})
answer = [libcuda.fake_current_device(), (ran.read()["y"] == content).all().item()]
begin = ran.device.event()
for _ in range(10):
    ran.forward()
end = ran.device.event()
ran.device.synchronize()
answer.append(ran.device.elapsed_ms(begin, end))
del begin, end
ran.close()
ran.close()
answer += [libcuda.fake_live(), libcuda.fake_current_device(), libcuda.fake_retained(1)]
"""
    current, same, ms, live, after, retained = ask(code, cuda_devices=2)
    assert (current, same) == (1, True)
    assert ms == pytest.approx(10 * 0.001)  # a copy of less than a KiB takes the fake a microsecond
    assert (live, after, retained) == (0, -1, 0)


def test_what_an_engine_refuses_is_told_and_nothing_is_left_on_the_device():
    code = f"""{STAND_IN}
answer = [refusal(engine=b"other"), refusal(shape=(3, 2)), refusal(inputs=content[:8])]
"""
    other, shape, size = ask(code)
    assert other[:2] == ["Unsupported", "this device does not take the engine: without a reason"]
    assert shape[:2] == ["Unsupported", "the engine does not take (3, 2) for 'x': without a reason"]
    assert size[:2] == ["Unsupported", "got 8 bytes for 'x', expected 24: its type is another"]
    assert [each[2:] for each in (other, shape, size)] == [[0, -1]] * 3


def test_a_device_that_is_too_small_is_out_of_memory():
    code = f"{STAND_IN}\nanswer = refusal()"
    assert ask(code, cuda_memory=30) == ["MemoryError", "CUDA driver: out of memory", 0, -1]
