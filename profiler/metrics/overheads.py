"""What a launch costs its host and its device, each apart, and the time of a kernel that waits for neither."""

from collections.abc import Callable

from mixprof.machine.devices import Call, Device

CALLS = 100  # of a kernel in a graph, and twice as many in another; far fewer than a queue holds
LOOKS = 20
GATE_MS = 1.0  # of spinning ahead of a replay, while the host enqueues it
WARM_MS = 50.0  # of spinning, after which a GPU's clock is up


def host_s(run: Callable[[], object], device: Device) -> float:
    """Seconds of the host to enqueue one call, whose kernel is shorter or has room in the queue."""

    def look() -> float:
        device.synchronize()
        start = device.clock()
        for _ in range(CALLS):
            run()
        return (device.clock() - start) / CALLS

    return min(look() for _ in range(LOOKS))


def device_s(run: Callable[[], object], device: Device) -> float:
    """Seconds of the device for one call inside a CUDA graph: what a hundred more of them add to a replay."""
    few, many = (_captured(run, calls, device) for calls in (CALLS, 2 * CALLS))
    device.spin(WARM_MS)
    both = [(_replay_ms(few, device), _replay_ms(many, device)) for _ in range(LOOKS)]
    return (min(ms for _, ms in both) - min(ms for ms, _ in both)) / CALLS / 1e3


def _captured(run: Callable[[], object], calls: int, device: Device) -> Call:
    def several() -> None:
        for _ in range(calls):
            run()

    return device.capture(several)


def _replay_ms(replay: Call, device: Device) -> float:
    device.spin(GATE_MS)
    begin = device.event()
    replay()
    end = device.event()
    device.synchronize()
    return device.elapsed_ms(begin, end)
