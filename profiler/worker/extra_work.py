"""A slow-down that is known: real work beside the forward, as long as a share of it. Measured first, never a sleep."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch

from mixprof.data.errors import Unsupported
from mixprof.machine import streams
from mixprof.machine.devices import Device
from mixprof.machine.devices.cpu import Cpu
from mixprof.machine.devices.simulated import Simulated
from mixprof.machine.devices.torch_cuda import TorchCuda

SIDE = 32  # of the matrices that are multiplied: a few microseconds
SAMPLES = 15
UNIT_US = 3.0  # of a simulated kernel


def slowed(
    forward: Callable[[], object], share: float, device: Device, before: Callable[[], object] | None = None
) -> Callable[[], object]:
    """The forward, and after it so many small matrix products that it takes `share` longer in the mean.

    What is owed adds up over forwards, so a product that is longer than the share of one forward runs at every
    second one. On CUDA the products go to torch's own stream: never run on a GPU yet.
    """
    product = device.work(UNIT_US) if isinstance(device, Simulated) else _product(device)
    owed_each = share * _typical_ms(forward, device, before)
    unit_ms = _typical_ms(product, device)
    owed_ms = 0.0

    def run() -> object:
        nonlocal owed_ms
        result = forward()
        owed_ms += owed_each
        while owed_ms >= unit_ms:
            product()
            owed_ms -= unit_ms
        return result

    return run


def _product(device: Device) -> Callable[[], object]:
    if not isinstance(device, (Cpu, TorchCuda)):
        raise Unsupported("work is injected beside a forward that runs in torch: use eager or compile to calibrate")
    left = torch.full((SIDE, SIDE), 0.5, device=device.name)
    out = torch.empty_like(left)
    return lambda: torch.mm(left, left, out=out)


def _typical_ms(forward: Callable[[], object], device: Device, before: Callable[[], object] | None = None) -> float:
    """The median time of one call, over samples of at least a millisecond."""
    if device.queue:
        take = streams.gpu_sampler(forward, streams.queue_of(forward, device, before, before), device, before)
    else:
        repeats = 1 if before else streams.forwards_per_sample(forward, device)
        take = streams.host_sampler(forward, repeats, device, before)
    return statistics.median(take() for _ in range(SAMPLES))
