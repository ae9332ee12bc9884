"""One gate at a time on a machine: two at once would disturb each other."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from mixprof.data.case import is_simulated
from mixprof.plan.settings import Axes

LOCK = Path(tempfile.gettempdir()) / f"mixprof-gate-{os.getuid()}.lock"


@contextlib.contextmanager
def only_one(groups: Sequence[Axes], say: Callable[[str], None]) -> Iterator[None]:
    """Hold this machine for one gate of these groups; wait, and say so, while another one of this user measures.

    A gate on simulated devices alone disturbs nobody: their clock is virtual.
    """
    if all(group.devices and all(map(is_simulated, group.devices)) for group in groups):
        yield
        return
    lock = FileLock(LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say("another gate measures on this machine: waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
