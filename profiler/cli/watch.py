"""How the command line watches a sweep: progress on standard error, and an interrupt that lets the launch end."""

import contextlib
import signal
import sys
from collections.abc import Iterator

from mixprof.run.progress import Progress, shown


class Interruptible:
    """While launches run, a first interrupt ends the sweep after the one that runs; a second one or SIGTERM at once."""

    def __init__(self) -> None:
        self.interrupted = False

    @contextlib.contextmanager
    def over(self, launches: int) -> Iterator[Progress]:
        before = signal.signal(signal.SIGINT, self._on_interrupt)
        try:
            with shown(sys.stderr, launches) as progress:
                yield progress
        finally:
            signal.signal(signal.SIGINT, before)

    def stop(self) -> bool:
        return self.interrupted

    @property
    def exit_code(self) -> int:
        return 130 if self.interrupted else 0

    def _on_interrupt(self, number: int, frame: object) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        print("mixprof: stopping when this launch ends; interrupt again to stop now", file=sys.stderr)
