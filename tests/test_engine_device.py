"""The device of an engine over the fake driver, through the real cuda.bindings; its kernels through ptxas, if there."""

import shutil
import subprocess
from pathlib import Path

import pytest

from fake_driver import ask, needs_bindings
from mixprof.machine.devices import engine

START = """
import ctypes
import numpy as np
from mixprof.machine.devices.engine import EngineDevice
device = EngineDevice(0)
live = ctypes.CDLL("libcuda.so.1").fake_live
"""


@needs_bindings
def test_what_is_given_to_a_device_is_read_back_and_all_is_freed():
    code = f"""{START}
content = np.arange(100, dtype=np.uint8)
memory, nothing = device.allocate(100), device.allocate(0)
device.upload(memory, content)
device.upload(nothing, np.empty(0, np.uint8))
answer = [bool((device.download(memory, 100) == content).all()), device.download(nothing, 0).size]
device.fill(memory, 255, 100)
answer.append(sorted(set(device.download(memory, 100).tolist())))
flush = device.flusher()
flush(), device.spin(0.5)
event = device.event()
device.synchronize()
answer.append(device.is_done(event))
del memory, nothing, flush, event
device.close()
answer += [live(), ctypes.CDLL("libcuda.so.1").fake_current_device()]
"""
    assert ask(code) == [True, 0, [255], True, 0, -1]


@needs_bindings
def test_times_are_those_between_two_events():
    code = f"""{START}
begin = device.event()
for _ in range(3):
    device.spin(1.0)
answer = device.elapsed_ms(begin, device.event())
"""
    assert ask(code, cuda_kernel_ns=20000) == pytest.approx(0.06)  # to the fake one kernel is as long as another


@needs_bindings
def test_a_graph_is_one_launch_and_is_freed_before_the_context_is_left():
    code = f"""{START}
memory = device.allocate(8)
replay = device.capture(lambda: device.fill(memory, 7, 8))
answer = [device.download(memory, 8).tolist() == [7] * 8]
replay()
answer.append(device.download(memory, 8).tolist())
device.free_graphs()
del memory
device.close()
answer.append(live())
"""
    assert ask(code) == [False, [7] * 8, 0]


@needs_bindings
def test_a_device_that_is_too_small_is_out_of_memory():
    code = f"""{START}
try:
    device.allocate(1 << 20)
except MemoryError as error:
    answer = str(error)
"""
    assert ask(code, cuda_memory=1 << 16) == "CUDA driver: out of memory"


@pytest.mark.parametrize("architecture", ["sm_75", "sm_90", "sm_120"])
def test_the_kernels_are_ptx_that_compiles(architecture, tmp_path):
    ptxas = shutil.which("ptxas")
    if ptxas is None:
        pytest.skip("no ptxas here: it comes with CUDA's toolkit")
    source = Path(engine.__file__).with_name("kernels.ptx")
    command = [ptxas, f"-arch={architecture}", "-o", str(tmp_path / "kernels.cubin"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
