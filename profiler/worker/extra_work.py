"""A slow-down that is known: real work beside the forward, as long as a share of it. Measured first, never a sleep."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch

from mixprof.data.errors import Unsupported
from mixprof.machine import streams
from mixprof.machine.streams import Stream, TorchStream

SIDE = 32  # of the matrices that are multiplied: a few microseconds
SAMPLES = 15


def slowed(forward: Callable[[], object], share: float, on: str, stream: Stream | None) -> Callable[[], object]:
    """The forward, and after it so many small matrix products that it takes `share` longer in the mean.

    What is owed adds up over forwards, so a product that is longer than the share of one forward runs at every
    second one. On CUDA the products go to torch's own stream: never run on a GPU yet.
    """
    if stream is not None and not isinstance(stream, TorchStream):
        raise Unsupported("work is injected beside a forward that runs in torch: use eager or compile to calibrate")
    product = _product(on)
    owed_each = share * _typical_ms(forward, stream)
    unit_ms = _typical_ms(product, stream)
    owed_ms = 0.0

    def run() -> object:
        nonlocal owed_ms
        found = forward()
        owed_ms += owed_each
        while owed_ms >= unit_ms:
            product()
            owed_ms -= unit_ms
        return found

    return run


def _product(on: str) -> Callable[[], object]:
    left = torch.full((SIDE, SIDE), 0.5, device=on)
    out = torch.empty_like(left)
    return lambda: torch.mm(left, left, out=out)


def _typical_ms(forward: Callable[[], object], stream: Stream | None) -> float:
    """The median time of one call, over samples of at least a millisecond."""
    repeats = streams.forwards_per_sample(forward, stream)
    take = streams.host_sampler(forward, repeats) if stream is None else streams.gpu_sampler(forward, repeats, stream)
    return statistics.median(take() for _ in range(SAMPLES))
