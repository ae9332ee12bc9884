"""Prints what the samplers say of a simulated GPU, today's and those before they were gated, beside the truth.

`ungated` is the sampler of device time as it was: nine blocks of event pairs, the first of which hides that the host
has to get ahead, none of it behind a gate. Rows of the table in docs/simulated-device.md.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

from mixprof.machine import simulation, streams
from mixprof.machine.devices.simulated import Simulated
from mixprof.machine.simulation import Gpu, Kernel

SAMPLES = 200
TOLERANCE = 0.01
REGIMES: dict[str, tuple[Gpu, Sequence[Kernel]]] = {
    "6 kernels of 2.5 µs, eager": (Gpu(), [Kernel(2.5, 4.0)] * 6),
    "a network at batch 1: 150 kernels of 1.6 µs": (Gpu(), [Kernel(1.6, 2.0)] * 150),
    "150 kernels of 8 µs": (Gpu(), [Kernel(8.0, 9.0)] * 150),
    "device-bound: 20 kernels of 80 µs": (Gpu(), [Kernel(80.0, 90.0)] * 20),
    "the batch 1 network as a graph": (Gpu(), simulation.graph(Gpu(), [Kernel(1.6, 2.0)] * 150)),
    "1,200 launches of 2 µs, more than the queue": (Gpu(), [Kernel(2.0, 2.0)] * 1200),
}


def ungated(forward: Callable[[], object], device: Simulated, before: Callable[[], object] | None) -> float:
    """The median of the sampler before gates, in milliseconds."""
    once_ms = min(streams.host_ms(forward, 1, device) for _ in range(3))
    repeats = 1 if before else max(1, math.ceil(1.0 / once_ms))
    samples: list[float] = []
    while len(samples) < SAMPLES:
        pairs = []
        for _ in range(9):
            if before is not None:
                before()
            begin = device.event()
            for _ in range(repeats):
                forward()
            pairs.append((begin, device.event()))
        device.synchronize()
        samples += [device.elapsed_ms(begin, end) / repeats for begin, end in pairs[1:]]
    return statistics.median(samples)


def gated(forward: Callable[[], object], device: Simulated, before: Callable[[], object] | None) -> float:
    """The median of today's sampler, in milliseconds."""
    take = streams.gpu_sampler(forward, streams.queue_of(forward, device, before), device, before)
    return statistics.median(take() for _ in range(SAMPLES))


def measured(regime: str, mode: str, sampler: Callable[..., float]) -> float:
    gpu, kernels = REGIMES[regime]
    device = Simulated(gpu, f"{regime} {mode}")
    forward = device.forward(kernels)
    for _ in range(200):  # brings the clock up
        forward()
    device.synchronize()
    return sampler(forward, device, device.flusher() if mode == "cold" else None)


def main() -> None:
    print("| forward | mode | truth (ms) | before | now |")
    print("|---|---|---|---|---|")
    for regime, (gpu, kernels) in REGIMES.items():
        for mode in ("hot", "cold"):
            expected = simulation.truth(gpu, kernels, cold=mode == "cold").gpu_ms
            cells = []
            for sampler in (ungated, gated):
                found = measured(regime, mode, sampler)
                right = abs(found / expected - 1) <= TOLERANCE
                cells.append(f"{found:.4g}" if right else f"**{found:.4g}**")
            print(f"| {regime} | {mode} | {expected:.4g} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
