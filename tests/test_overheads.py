"""Overheads of host and device, against a simulated GPU whose truth is known."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from mixprof.data.manifest import Peaks
from mixprof.machine.devices.simulated import Simulated
from mixprof.machine.simulation import Gpu, Kernel, graph
from mixprof.metrics import overheads
from mixprof.plan import prediction


@dataclass
class Capturing(Simulated):
    """A simulated GPU on which what is called while it captures becomes a graph."""

    captured: list[Kernel] | None = field(default=None)

    def kernel(self, us: float):
        call = self.work(us)
        return lambda: call() if self.captured is None else self.captured.append(Kernel(us, us))

    def capture(self, run):
        self.captured = []
        run()
        kernels, self.captured = graph(self.gpu, self.captured), None
        return self.forward(kernels)


@pytest.mark.parametrize(("launch_us", "kernel_us", "node_us"), [(6.0, 1.5, 0.4), (2.0, 1.0, 0.0), (6.0, 20.0, 1.0)])
def test_host_and_device_are_told_apart(launch_us, kernel_us, node_us):
    gpu = Gpu(launch_us=launch_us, node_us=node_us, noise=0.0, launch_noise=0.0)
    device = Capturing(gpu, "seed")
    run = device.kernel(kernel_us)
    assert overheads.device_s(run, device) == pytest.approx((kernel_us + node_us) / 1e6, rel=0.01)
    assert overheads.host_s(run, device) == pytest.approx(launch_us / 1e6, rel=0.1)


def test_a_copy_within_l2_is_timed_without_the_host():
    device = Capturing(Gpu(noise=0.0, launch_noise=0.0), "seed")
    copy_us = 2 * 10 * 2**20 / (device.gpu.l2_gb_s * 1e3)  # of a quarter of 40 MiB, read and written
    assert overheads.device_s(device.kernel(copy_us), device) == pytest.approx(copy_us / 1e6, rel=0.01)
    assert copy_us < device.gpu.launch_us  # from call to call it would have looked slower


def test_a_prediction_for_a_gpu_takes_the_overhead_of_its_device():
    known: Any = {"device": "cuda:0", "dtype": "float16", "matrix_flops_per_s": 1.0, "vector_flops_per_s": 1.0}
    peaks = Peaks(**known, copy_bytes_per_s=1.0, overhead_s=6e-6, host_overhead_s=6e-6, device_overhead_s=2e-6)
    assert prediction.here(peaks).kernel_s == 2e-6
    assert prediction.here(Peaks(**known, copy_bytes_per_s=1.0, overhead_s=1e-6)).kernel_s == 1e-6
