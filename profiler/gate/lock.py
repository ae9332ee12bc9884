"""One gate at a time on a machine: two at once would disturb each other."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = Path(tempfile.gettempdir()) / f"mixprof-gate-{os.getuid()}.lock"


@contextlib.contextmanager
def only_one(say: Callable[[str], None]) -> Iterator[None]:
    """Hold this machine for one gate; wait, and say so, while another one of this user measures."""
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
