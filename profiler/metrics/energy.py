"""Energy per image over a window of seconds: by NVML's counter on a GPU, by RAPL through zeus on a CPU."""

import time
from collections.abc import Callable

from mixprof.data.case import is_simulated
from mixprof.data.errors import Unavailable
from mixprof.data.launch import Energy
from mixprof.machine import nvml
from mixprof.machine.devices import Device
from mixprof.metrics import Subject

WINDOW_S = 3.0  # energy counters are renewed every 20 to 100 ms: a window must hold many of them
Window = Callable[[], Callable[[], float]]  # begins one; what that returns ends it: joules


def measure(subject: Subject) -> Energy:
    """Energy of further forwards; where it cannot be told, the reason."""
    try:
        if is_simulated(subject.case.device):
            raise Unavailable("energy: it is not simulated")
        return joules(subject.forward, subject.device, subject.case.batch)
    except Unavailable as error:
        return Energy(reason=str(error))


def joules(forward: Callable[[], object], device: Device, batch: int) -> Energy:
    """Joules per image of the whole GPU, or of all CPU packages with their DRAM, idle draw included.

    Unavailable where the machine has no counter that this user may read, or nothing to read it with.
    """
    begin, source = (_of_cpu(), "rapl") if device.name == "cpu" else (_of_gpu(device.name), "nvml")
    device.synchronize()
    forwards, start, end = 0, time.perf_counter(), begin()
    while time.perf_counter() - start < WINDOW_S:
        forward()  # as fast as the device takes them: a synchronise each would count the host's gaps
        forwards += 1
    device.synchronize()
    spent_j, window_s = end(), time.perf_counter() - start
    return Energy(joules_per_image=spent_j / (forwards * batch), window_s=window_s, source=source)


def _of_gpu(device: str) -> Window:
    """By NVML's counter of all energy since the driver was loaded."""
    counter = nvml.energy_counter(int(device.split(":")[1]))
    if counter is None:
        raise Unavailable(f"energy: {nvml.trouble() or 'this GPU has no counter that NVML tells of'}")

    def begin() -> Callable[[], float]:
        before = counter()
        return lambda: counter() - before

    return begin


def _of_cpu() -> Window:
    try:
        from zeus.monitor import ZeusMonitor
    except ImportError as error:
        raise Unavailable("energy: pip install 'mixprof[energy]'") from error
    try:
        monitor = ZeusMonitor(gpu_indices=[])
    except Exception as error:  # zeus has an exception of its own for each library beneath it
        raise Unavailable(f"energy: {type(error).__name__}: {error}") from error
    if not monitor.cpu_indices:
        raise Unavailable("energy: this machine has no RAPL counter that this user may read")

    def begin() -> Callable[[], float]:
        monitor.begin_window("forwards", sync_execution=False)
        return end

    def end() -> float:
        measured = monitor.end_window("forwards", sync_execution=False)
        return float(sum([*(measured.cpu_energy or {}).values(), *(measured.dram_energy or {}).values()]))

    return begin
