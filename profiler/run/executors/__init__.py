"""Executors: how the launches of a sweep are run. One file each, one line each in EXECUTORS."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from mixprof.plan.axes import Planned
from mixprof.plan.settings import Measure
from mixprof.run.executors import local
from mixprof.run.executors.local import Progress


class Executor(Protocol):
    """Runs every case that has no record yet into a run folder; nothing more is started once `stop()` is true."""

    def __call__(
        self, planned: list[Planned], run: Path, measure: Measure, progress: Progress, stop: Callable[[], bool]
    ) -> None: ...


EXECUTORS: dict[str, Executor] = {"local": local.execute}  # one launch at a time, on this machine
