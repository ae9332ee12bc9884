"""Waiting until a GPU is cool enough to be timed."""

from mixprof.machine.devices import Device

STEP_S, MOST_S = 1.0, 120.0


def cool(device: Device, headroom_c: float) -> float | None:
    """Wait until the device is so many degrees below where it slows itself down, for two minutes at most.

    The seconds waited; None where its sensors do not tell.
    """
    read, limit_c = device.reader(), device.slowdown_c()
    if read is None or limit_c is None:
        return None
    start = device.clock()
    while (now_c := read().temperature_c) is not None:
        if now_c <= limit_c - headroom_c or device.clock() - start >= MOST_S:
            return device.clock() - start
        device.wait(STEP_S)
    return None
