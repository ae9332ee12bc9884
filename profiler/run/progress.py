"""What a person sees while a sweep runs: one line that changes on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import time
from typing import TextIO

from mixprof.data.types import Case, Launch


class Lines:
    """Case, elapsed, remaining and outcome of each launch, on a stream."""

    def __init__(self, stream: TextIO, launches: int):
        self.stream, self.launches = stream, launches
        self.done, self.start = 0, time.monotonic()

    def begin(self, case: Case, round: int) -> None:
        if self.stream.isatty():
            width = shutil.get_terminal_size().columns - 1
            line = f"[{self.done + 1}/{self.launches}] {self._clock()} round {round + 1}  {case.label()} …"
            self.stream.write("\r\x1b[K" + line[:width])
            self.stream.flush()

    def end(self, case: Case, launch: Launch) -> None:
        self.done += 1
        clear = "\r\x1b[K" if self.stream.isatty() else ""
        said = launch.status if launch.reason is None else f"{launch.status}: {launch.reason}"
        self.stream.write(
            f"{clear}[{self.done}/{self.launches}] {self._clock()}  {case.label()}  {said}{_median(launch)}\n"
        )
        self.stream.flush()

    def _clock(self) -> str:
        elapsed = time.monotonic() - self.start
        left = elapsed / self.done * max(0, self.launches - self.done) if self.done else None
        return f"{_minutes(elapsed)} gone, {_minutes(left) if left is not None else '?'} left"


def _median(launch: Launch) -> str:
    times = launch.gpu_ms or launch.host_ms
    if times is None or launch.status != "ok":
        return ""
    ordered = sorted(times.samples)
    return f"  {ordered[len(ordered) // 2]:.3g} ms"


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
