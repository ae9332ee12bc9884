"""One gate at a time on a machine: two at once would disturb each other."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

LOCK = Path(tempfile.gettempdir()) / f"mixprof-gate-{os.getuid()}.lock"


@contextlib.contextmanager
def only_one() -> Iterator[None]:
    """Hold this machine for one gate; wait, and say so, while another one of this user measures."""
    with LOCK.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("mixprof: another gate measures on this machine: waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
