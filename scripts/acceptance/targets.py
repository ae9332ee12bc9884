"""Work of known length and size for a device, a real one or sim:0: spins, copies, products, alone or as a graph."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from mixprof.lowerings import Lowered
from mixprof.machine import devices, process, simulation
from mixprof.machine.devices import Call, Device
from mixprof.machine.devices.simulated import Simulated
from mixprof.machine.simulation import Kernel

if TYPE_CHECKING:
    import torch

CALIBRATION_CYCLES = 100_000_000  # some 60 ms: the host's clock tells their length to a thousandth


class Target(Protocol):
    """A device and what runs on it. Lengths in microseconds of the device."""

    device: Device
    l2_bytes: int

    def spins(self, us: float, count: int) -> Call: ...  # so many launches, each so long

    def graph(self, us: float, count: int) -> Call: ...  # the same as one graph

    def copy(self, size: int) -> Call: ...  # of so many bytes: as many are read as written

    def product(self, side: int, dtype: str) -> Call: ...  # of square matrices

    def chain(self, reads: int) -> Lowered: ...  # one kernel that reads so many bytes, the same each time


class OnSim:
    """sim:0, whose kernels last what they are told to."""

    def __init__(self, name: str):
        self.gpu = simulation.configured()
        self._device = Simulated(self.gpu, "acceptance", name)
        self.device: Device = self._device
        self.l2_bytes = self.gpu.l2_bytes

    def spins(self, us: float, count: int) -> Call:
        return self._device.forward([Kernel(us, us)] * count)

    def graph(self, us: float, count: int) -> Call:
        return self._device.forward(simulation.graph(self.gpu, [Kernel(us, us)] * count))

    def copy(self, size: int) -> Call:
        return self._device.forward([self._kernel("move", 0, 2 * size)])

    def product(self, side: int, dtype: str) -> Call:
        wide = dtype in ("float32", "tf32")
        return self._device.forward([self._kernel("matrix", 2 * side**3, 0, wide=wide)])

    def chain(self, reads: int) -> Lowered:
        return Lowered(self._device.forward([self._kernel("move", 0, reads)]), self._nothing, 0.0, device=self.device)

    @staticmethod
    def _nothing() -> torch.Tensor:
        raise NotImplementedError("what sim:0 reads is not simulated")

    def _kernel(self, kind: str, flops: int, size: int, *, wide: bool = False) -> Kernel:
        return simulation.kernel(self.gpu, kind=kind, flops=flops, moved_bytes=size, wide=wide)


class OnGpu:
    """A CUDA device through torch. Spins are told in cycles, whose length the host's clock tells."""

    def __init__(self, name: str):
        import torch

        process.prepare(name, "float16", 1)
        self.torch, self.name = torch, name
        self.device: Device = devices.of(name)
        self.l2_bytes = int(torch.cuda.get_device_properties(name).L2_cache_size)
        self.cycles_per_us = statistics.median(self._cycles_per_us() for _ in range(5))

    def _cycles_per_us(self) -> float:
        start = self.device.clock()
        self.torch.cuda._sleep(CALIBRATION_CYCLES)
        self.device.synchronize()
        return CALIBRATION_CYCLES / (1e6 * (self.device.clock() - start))

    def spins(self, us: float, count: int) -> Call:
        cycles, sleep = int(us * self.cycles_per_us), self.torch.cuda._sleep

        def run() -> None:
            for _ in range(count):
                sleep(cycles)

        return run

    def graph(self, us: float, count: int) -> Call:
        return self.device.capture(self.spins(us, count))

    def copy(self, size: int) -> Call:
        source = self.torch.rand(size // 4, device=self.name)
        target = self.torch.empty_like(source)
        return lambda: target.copy_(source)

    def product(self, side: int, dtype: str) -> Call:
        process.prepare(self.name, dtype, 1)
        kind = process.torch_dtype(dtype)
        left, right = (self.torch.randn(side, side, device=self.name).to(kind) for _ in range(2))
        out = self.torch.empty_like(left)
        return lambda: self.torch.mm(left, right, out=out)

    def chain(self, reads: int) -> Lowered:
        values = self.torch.rand(reads // 4, device=self.name)
        out = self.torch.empty((), device=self.name)
        run = self.device.capture(lambda: self.torch.sum(values, dim=0, out=out))
        return Lowered(run, out.clone, 0.0)


def of(name: str) -> Target:
    """The device with that name, warm: it has worked for half a second."""
    target: Target = OnSim(name) if name.startswith("sim") else OnGpu(name)
    warm = target.spins(500.0, 100)
    end = target.device.clock() + 0.5
    while target.device.clock() < end:
        warm()
        target.device.synchronize()
    return target


def samples(take: Callable[[], float], count: int) -> list[float]:
    return [float(f"{take():.6g}") for _ in range(count)]
