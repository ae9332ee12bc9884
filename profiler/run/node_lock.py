"""One timing at a time on a device, and on a CPU one on the whole node, whoever else measures there for this user."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def timing(device: str) -> Iterator[None]:
    """Hold the device, and wait for it. A GPU shares its node with other GPUs, never with a timing on the CPU.

    The kernel lets go of both when the process ends, however it ends.
    """
    on_cpu = not device.startswith("cuda")
    with contextlib.ExitStack() as stack:
        stack.enter_context(_held("node", fcntl.LOCK_EX if on_cpu else fcntl.LOCK_SH))
        if not on_cpu:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES") or device.removeprefix("cuda:")
            stack.enter_context(_held(f"gpu-{visible}", fcntl.LOCK_EX))
        yield


@contextlib.contextmanager
def _held(name: str, how: int) -> Iterator[None]:
    with (Path(tempfile.gettempdir()) / f"mixprof-{os.getuid()}-{name.replace('/', '_')}.lock").open("a") as file:
        fcntl.flock(file, how)
        yield
