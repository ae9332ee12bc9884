"""Samplers: how the time of a forward is taken, on a device of any kind."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from mixprof.machine.devices import Call, Device

BLOCK_MS = 1.0  # a sample is at least this long: forwards are repeated until it is
BLOCKS = 8  # of event pairs between two synchronises, at most: sensors are read once in it
BESIDE = 4  # places in the queue of a block besides its forwards: two events, a flush
LONGER = 1.5  # a gate than the enqueueing that it hides; twice as long after one that opened early
TRIES = 8  # of a queue whose gate opened early
ENQUEUES = 5


class GateOpened(Exception):
    """No gate holds these forwards: some of them wait for the device."""


@dataclass(frozen=True)
class Queue:
    """How forwards are enqueued between two synchronises.

    launches: places in the queue that a forward takes, as counted by filling it. gated: all of it waits behind a
    kernel until the last is enqueued, so that no gap of the host stands between two events.
    """

    forwards: int  # between two events
    blocks: int  # of a begin, forwards and an end
    launches: int | None = None
    gated: bool = False
    gate_ms: float = 0.0


def host_ms(forward: Call, repeats: int, device: Device) -> float:
    """Milliseconds per forward over `repeats` of them, the last one's result ready."""
    start = device.clock()
    for _ in range(repeats):
        forward()
    device.synchronize()
    return 1000 * (device.clock() - start) / repeats


def forwards_per_sample(forward: Call, device: Device) -> int:
    """How often to repeat a forward so that a sample of the host lasts at least a millisecond."""
    once_ms = min(host_ms(forward, 1, device) for _ in range(3))
    return max(1, math.ceil(BLOCK_MS / max(once_ms, 1e-3)))


def host_sampler(forward: Call, repeats: int, device: Device, before: Call | None = None) -> Callable[[], float]:
    """A sample from call to result ready, in milliseconds per forward; `before` runs outside it."""

    def take() -> float:
        if before is not None:
            before()
            device.synchronize()
        return host_ms(forward, repeats, device)

    return take


def enqueue_sampler(forward: Call, device: Device, repeats: int = 1, before: Call | None = None) -> Callable[[], float]:
    """A sample of the host time to enqueue a forward, in milliseconds per forward; the queue is empty before it."""

    def take() -> float:
        if before is not None:
            before()
        device.synchronize()
        start = device.clock()
        for _ in range(repeats):
            forward()
        return 1000 * (device.clock() - start) / repeats

    return take


def places(forward: Call, device: Device) -> int | None:
    """Places in the device's queue that a forward takes; None where it waits for the device by itself.

    Behind a gate, one small kernel after another is enqueued until the host has to wait for room: with a forward ahead
    of them as many fewer fit.
    """
    room, left = _room(device, lambda: None), _room(device, forward)
    return None if room is None or left is None else room - left


def _room(device: Device, forward: Call) -> int | None:
    """Small kernels that fit into the queue behind a gate and a forward; None where not even that forward does."""
    gate_ms = 4 * max(enqueue_sampler(forward, device)(), 1.0)
    for _ in range(TRIES):
        gate_ms *= 2
        opened = _gate(device, gate_ms)
        forward()
        if device.is_done(opened):
            continue
        count, before = 0, device.clock()
        while not device.is_done(opened):
            before, count = device.clock(), count + 1
            device.spin(0.0)
        waited_ms = 1000 * (device.clock() - before)
        device.synchronize()
        if waited_ms > gate_ms / 8:  # else the gate opened before the queue was full
            return count - 1
    return None


def _gate(device: Device, ms: float) -> object:
    """Close the queue for so long; the event of its opening."""
    device.synchronize()
    device.spin(ms)
    return device.event()


def queue_of(forward: Call, device: Device, before: Call | None = None, needs: Call | None = None) -> Queue:
    """The queue that suits a forward: blocks of at least a millisecond, of one forward where something is before it.

    needs: the part of that without which a forward cannot be, as a backward without its forward.
    """
    both = forward if needs is None else lambda: (needs(), forward())
    enqueue_ms = min(enqueue_sampler(both, device)() for _ in range(ENQUEUES))
    launches = places(both, device)
    if launches is None or launches + BESIDE > device.queue:
        repeats = 1 if before else forwards_per_sample(forward, device)
        return Queue(repeats, BLOCKS, launches)
    one = Queue(1, 1, launches, gated=True, gate_ms=LONGER * enqueue_ms)
    once_ms = min(gpu_sampler(forward, one, device, before)() for _ in range(3))
    most = (device.queue - BESIDE) // max(launches, 1)
    repeats = 1 if before else max(1, min(most, math.ceil(BLOCK_MS / max(once_ms, 1e-4))))
    blocks = max(1, min(BLOCKS, device.queue // (repeats * launches + BESIDE)))
    return Queue(repeats, blocks, launches, gated=True, gate_ms=LONGER * blocks * (repeats * enqueue_ms + 0.02))


def gpu_sampler(
    forward: Call, queue: Queue, device: Device, before: Call | None = None, look: Call = lambda: None
) -> Callable[[], float]:
    """Samples of device time in milliseconds per forward, between events.

    A queue whose gate opened while it was being filled is no sample: it is filled again behind a longer one, and after
    several GateOpened is raised. Of a Queue that is not gated the first block hides the time that the host needs to get
    ahead. `before` runs ahead of each block, outside its events; `look` once a queue, while it runs.
    """
    ready: list[float] = []
    gate_ms, longest_ms = queue.gate_ms, queue.gate_ms * 2**TRIES

    def fill() -> bool:
        """Whether nothing ran before all was enqueued; the samples are ready then."""
        opened = _gate(device, gate_ms if queue.gated else 0.0)
        pairs = []
        for _ in range(queue.blocks + (not queue.gated)):
            if before is not None:
                before()
            begin = device.event()
            for _ in range(queue.forwards):
                forward()
            pairs.append((begin, device.event()))
        in_time = not queue.gated or not device.is_done(opened)
        look()
        device.synchronize()
        if in_time:
            pairs = pairs if queue.gated else pairs[1:]
            ready.extend(device.elapsed_ms(begin, end) / queue.forwards for begin, end in reversed(pairs))
        return in_time

    def take() -> float:
        nonlocal gate_ms
        while not ready and not fill():
            if gate_ms > longest_ms:
                raise GateOpened(f"a gate of {gate_ms:.3g} ms opened while forwards were being enqueued behind it")
            gate_ms *= 2
        return ready.pop()

    return take
