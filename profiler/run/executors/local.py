"""Run the launches of a sweep on this machine, one at a time, in rounds, into a run folder."""

import errno
import os
import random
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from mixprof import lowerings
from mixprof.data import cache
from mixprof.data.launch import Launch
from mixprof.machine.process import default_threads
from mixprof.metrics import METRICS
from mixprof.plan.axes import Planned
from mixprof.plan.settings import Measure
from mixprof.run.client import Server, ServerDied
from mixprof.run.journal import Journal
from mixprof.run.launching import Bench, steady_launch
from mixprof.run.progress import Progress

LEAST_FREE_BYTES = 1 << 20


def preload(planned: Iterable[Planned]) -> tuple[str, ...]:
    """Modules that a server imports once for all launches of these cases."""
    names = [name for entry in planned for name in lowerings.parse(entry.case.lowering)[0].preload]
    # What building on `meta` imports at its first call: a second for each launch, once for a server.
    names = ["torch._dynamo", *names]
    metrics = (metric.module for metric in METRICS.values())
    return tuple(dict.fromkeys((*names, "mixprof.worker.jobs", *metrics)))


def check_cache(planned: Iterable[Planned]) -> None:
    """Raise UsageError where engines are asked for and others could have written what is kept of them."""
    if any(lowerings.parse(entry.case.lowering)[0].engine for entry in planned):
        cache.own_folder(cache.folder())


def execute(
    planned: list[Planned], run: Path, measure: Measure, progress: Progress, stop: Callable[[], bool] = lambda: False
) -> None:
    """Run every case that has no record yet. Each launch is journalled when it ends.

    A round is a seeded permutation of the cases under a server executed afresh for it. After
    `stop()` turns true the launch that runs is finished and nothing more is started.
    """
    run = run.resolve()
    journal = Journal.open(run, measure.rounds, measure.layers)
    rounds = _Rounds(journal, cache.own_folder(run / "scratch"), measure, progress, stop)
    check_cache(planned)
    for entry in planned:
        journal.close(entry.case)
        reason = impossible(entry)
        if entry.case not in journal.recorded and reason is not None:
            journal.add(entry.case, reason)
    for round in range(measure.rounds):
        waiting = [entry for entry in planned if journal.is_due(entry.case, round)]
        random.Random(f"{measure.seed}/{round}").shuffle(waiting)
        rounds.run(waiting, round)
    rounds.run([entry for entry in planned if journal.lacks_layers(entry.case)], measure.rounds)
    if all(entry.case in journal.recorded for entry in planned):
        shutil.rmtree(rounds.scratch, ignore_errors=True)


def impossible(entry: Planned) -> Launch | None:
    """The launch that stands for a case which need not be tried."""
    if entry.reason is not None:
        return Launch("unsupported", entry.reason)
    absent = lowerings.missing(entry.case.lowering)
    return Launch("unavailable", absent) if absent else None


@dataclass(frozen=True)
class _Rounds:
    """Runs rounds of launches, each under a server of its own."""

    journal: Journal
    scratch: Path
    measure: Measure
    progress: Progress
    stop: Callable[[], bool]

    def run(self, waiting: list[Planned], round: int) -> None:
        """Launch each case once. The round after the last times layers."""
        server: Server | None = None
        try:
            for entry in waiting:
                if self.stop():
                    return
                self.progress.begin(entry.case, round)
                try:
                    server = server or self._server(waiting)
                    traces, last = self.scratch.parent / "traces", round == self.measure.rounds
                    launch = steady_launch(entry, Bench(server, self.measure, traces=traces, profile=last, round=round))
                except ServerDied as error:
                    if server is not None:
                        server.close()
                    server = None
                    launch = Launch("crashed", str(error))
                if launch.status == "crashed":
                    refuse_full_disk(self.scratch)
                launch = replace(launch, round=round)
                self.journal.add(entry.case, launch)
                self.progress.end(entry.case, launch)
        finally:
            if server is not None:
                server.close()

    def _server(self, waiting: list[Planned]) -> Server:
        threads = self.measure.threads or default_threads()
        return Server(self.scratch, preload(waiting), threads, self.measure.allocator)


def refuse_full_disk(scratch: Path) -> None:
    """A worker that had no room to write in is no finding about its case: stop, with what is finished intact."""
    if shutil.disk_usage(scratch).free < LEAST_FREE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(scratch))
