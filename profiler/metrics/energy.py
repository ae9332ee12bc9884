"""Energy per image, through zeus (NVML on a GPU, RAPL on a CPU), over a window of seconds."""

import time
from collections.abc import Callable
from typing import Any

from mixprof.data.case import is_simulated
from mixprof.data.errors import Unavailable
from mixprof.data.launch import Energy
from mixprof.machine.devices import Device
from mixprof.metrics import Subject

WINDOW_S = 3.0  # energy counters are renewed every 20 to 100 ms: a window must hold many of them


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

    Unavailable where zeus is not installed or the machine has no counter that this user may read.
    """
    monitor, indices = _monitor(device.name)
    forwards, start = 0, time.perf_counter()
    monitor.begin_window("forwards", sync_execution=False)
    while time.perf_counter() - start < WINDOW_S:
        forward()
        device.synchronize()
        forwards += 1
    measured = monitor.end_window("forwards", sync_execution=False)
    if device.name == "cpu":
        spent_j = sum((measured.cpu_energy or {}).values()) + sum((measured.dram_energy or {}).values())
    else:
        spent_j = sum(measured.gpu_energy[index] for index in indices)
    source = "rapl" if device.name == "cpu" else "nvml"
    return Energy(joules_per_image=spent_j / (forwards * batch), window_s=measured.time, source=source)


def _monitor(device: str) -> tuple[Any, list[int]]:
    """A monitor of one device alone, and its indices."""
    try:
        from zeus.monitor import ZeusMonitor
    except ImportError as error:
        raise Unavailable("energy: pip install 'mixprof[energy]'") from error
    try:
        if device == "cpu":
            monitor = ZeusMonitor(gpu_indices=[])
            indices = list(monitor.cpu_indices)
        else:
            indices = [int(device.split(":")[1])]
            monitor = ZeusMonitor(gpu_indices=indices, cpu_indices=[])
    except Exception as error:  # zeus has an exception of its own for each library beneath it
        raise Unavailable(f"energy: {type(error).__name__}: {error}") from error
    if not indices:
        raise Unavailable("energy: this machine has no RAPL counter that this user may read")
    return monitor, indices
