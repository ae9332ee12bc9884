"""What runs on a node of a cluster: a case's launches, one after the other, each under a server of its own."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mixprof.data.errors import UsageError
from mixprof.data.json import Json, decode
from mixprof.data.launch import Launch
from mixprof.data.manifest import Peaks
from mixprof.data.messages import Machine
from mixprof.machine.process import default_threads
from mixprof.plan.axes import Planned, Source
from mixprof.plan.settings import Measure
from mixprof.run import node_lock, peaks
from mixprof.run.client import Server, ServerDied, source_request
from mixprof.run.executors.local import impossible, preload, refuse_full_disk
from mixprof.run.launching import Bench, steady_launch

ASK_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Task:
    """The launches of a case that are still to be made."""

    entry: Planned
    measure: Measure
    rounds: tuple[int, ...]  # the round after the last times layers
    node: str
    lost: int = 0  # launches of the first of these rounds that went with their nodes


@dataclass(frozen=True)
class Asked:
    """A server that answers questions about this node."""

    server: Server

    def ask(self, job: str, **request: Any) -> Json:
        """A job's values; UsageError when it has none."""
        values = self.server.run(job, ASK_TIMEOUT_S, **request).values
        if values["status"] != "ok":
            raise UsageError(str(values["reason"]))
        return values


def launches(task: Task) -> Iterator[Launch]:
    """Make a case's launches while the device is held; the first that is not ok ends them."""
    reason = impossible(task.entry)
    if reason is not None:
        yield replace(reason, environment=replace(reason.environment, origin=task.node))
        return
    usual_priority()
    with node_lock.timing(task.entry.case.device), tempfile.TemporaryDirectory(prefix="mixprof-node-") as folder:
        for round in task.rounds:
            began = time.time()
            launch = _launch(task, round, Path(folder))
            if launch.status == "crashed":
                refuse_full_disk(Path(folder))
            lost = task.lost if round == task.rounds[0] and task.lost else None
            environment = replace(launch.environment, origin=task.node, began_s=began, ended_s=time.time(), lost=lost)
            yield replace(launch, round=round, environment=environment)
            if launch.status != "ok":
                return


def usual_priority() -> int:
    """Give this process, and those it starts, the priority of the one that started it; what it has then.

    Ray makes workers nicer than their node by 15: whatever else runs there would take their CPU. Not every user may.
    """
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, os.getppid()))
    return os.getpriority(os.PRIO_PROCESS, 0)


def _launch(task: Task, round: int, scratch: Path) -> Launch:
    measure = task.measure
    try:
        with _server(scratch, preload([task.entry]), measure) as server:
            return steady_launch(task.entry, Bench(server, measure, profile=round == measure.rounds))
    except ServerDied as error:
        return Launch("crashed", str(error))


def _server(scratch: Path, modules: tuple[str, ...], measure: Measure) -> Server:
    return Server(scratch, modules, measure.threads or default_threads(), measure.allocator)


def survey(measure: Measure, sources: dict[str, Source]) -> Machine:
    """This node, while nothing is timed on it. UsageError for a user's model or a file that is not here.

    sources: by the model's name, those that came from the user's own folder.
    """
    niceness = usual_priority()
    with _asked("cpu", measure) as asked:
        for name, source in sources.items():
            _refuse_absent(name, source, asked)
        machine = decode(asked.ask("environment"), Machine)
        return replace(machine, informing={**machine.informing, "niceness": niceness})


def _refuse_absent(name: str, source: Source, asked: Asked) -> None:
    if source.artifact is not None:
        if not Path(source.artifact.path).exists():
            raise UsageError(f"the file '{name}' is not there: name it by a path below the current folder")
        return
    try:
        asked.ask("describe", source=source_request(source))
    except UsageError as error:
        raise UsageError(f"'{name}' cannot be imported there ({error}): install it, or start from its folder") from None


def measured_peaks(planned: list[Planned], measure: Measure, machine: Machine) -> list[Peaks]:
    """The peaks of this node's devices, from its cache where they were measured before."""
    with _asked(planned[0].case.device, measure) as asked:
        return peaks.of_cases(planned, asked, machine)


@contextlib.contextmanager
def _asked(device: str, measure: Measure) -> Iterator[Asked]:
    """A server that answers while nothing is timed on the device."""
    with (
        node_lock.timing(device),
        tempfile.TemporaryDirectory(prefix="mixprof-node-") as folder,
        _server(Path(folder), ("torch", "mixprof.worker.jobs"), measure) as server,
    ):
        yield Asked(server)
