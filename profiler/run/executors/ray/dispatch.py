"""Send cases to nodes that are free, write down each launch as it arrives, and launch anew what a node took with it."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mixprof.data.errors import first_line
from mixprof.data.launch import Launch
from mixprof.data.messages import Machine
from mixprof.plan.axes import Planned
from mixprof.plan.settings import Measure
from mixprof.run.executors import node as on_node
from mixprof.run.executors.ray import cluster
from mixprof.run.executors.ray.cluster import Node
from mixprof.run.journal import Journal
from mixprof.run.progress import Progress

TRIES = 5  # launches of a case that may be lost before it counts as crashed
WAIT_S = 1.0


@dataclass
class Job:
    """A case that waits for a node; how many launches of its round are lost."""

    entry: Planned
    lost: int = 0


@dataclass
class Bed:
    """The nodes of one testbed, and what is to be run on them."""

    name: str
    label: str | None
    journal: Journal
    nodes: set[str]
    first: Node  # on which its peaks are measured
    machine: Machine
    waiting: deque[Job] = field(default_factory=deque)
    deserted: bool = False  # none of its nodes was up when last looked at


@dataclass(frozen=True)
class Running:
    """A case on a node."""

    bed: Bed
    job: Job
    node: Node
    stream: Any  # of launches


@dataclass
class Dispatch:
    """The loop of a sweep over a cluster. At most one case a free device is sent: the rest waits here."""

    beds: list[Bed]
    measure: Measure
    progress: Progress
    stop: Callable[[], bool]
    newcomers: Callable[[list[Node]], None]  # hears which nodes are up
    running: list[Running] = field(default_factory=list)

    def run(self) -> None:
        """Until every case has its record; after `stop()` each running launch is waited for and no other begun."""
        try:
            while self.running or (not self.stop() and any(bed.waiting for bed in self.beds)):
                if not self.stop():
                    self._send(cluster.nodes())
                self._receive()
        finally:
            for one in self.running:
                self._cancel(one)

    def _send(self, up: list[Node]) -> None:
        self.newcomers(up)
        for bed in self.beds:
            mine = [node for node in up if node.id in bed.nodes]
            for node in mine:
                while bed.waiting and self._is_free(node, bed.waiting[0].entry.case.device):
                    self._start(bed, bed.waiting.popleft(), node)
            if bed.waiting and not mine and not bed.deserted:
                say(f"{bed.name}: no node of it is up: waiting; an interrupt ends the sweep, and --resume goes on")
            bed.deserted = not mine

    def _is_free(self, node: Node, device: str) -> bool:
        """Whether nothing that a timing must not run beside runs on the node."""
        beside = [one.job.entry.case.device for one in self.running if one.node.id == node.id]
        if not device.startswith("cuda"):
            return not beside
        return len(beside) < node.gpus and all(other.startswith("cuda") for other in beside)

    def _start(self, bed: Bed, job: Job, node: Node) -> None:
        case, rounds = job.entry.case, bed.journal.remaining(job.entry.case)
        task = on_node.Task(job.entry, self.measure, rounds, node.name, job.lost)
        self.progress.begin(case, rounds[0])
        self.running.append(Running(bed, job, node, cluster.on(node, on_node.launches, case.device).remote(task)))

    def _receive(self) -> None:
        """Take what arrives within a second."""
        import ray

        streams = [one.stream for one in self.running]
        ready = ray.wait(streams, num_returns=1, timeout=WAIT_S)[0] if streams else _sleep()
        for one in [one for one in self.running if any(one.stream is stream for stream in ready)]:
            self._take(one)

    def _take(self, one: Running) -> None:
        import ray

        try:
            launch: Launch = ray.get(next(one.stream))
        except StopIteration:
            self.running.remove(one)
            return
        except ray.exceptions.RayError as error:
            self._lose(one, error)
            return
        one.job.lost = 0
        self._add(one, launch)
        if self.stop():
            self._cancel(one)
            self.running.remove(one)

    def _add(self, one: Running, launch: Launch) -> None:
        one.bed.journal.add(one.job.entry.case, launch)
        self.progress.end(one.job.entry.case, launch)

    def _lose(self, one: Running, error: Exception) -> None:
        """Launch a case anew whose node, or worker there, is gone; the launches of it that arrived stay."""
        import ray

        self.running.remove(one)
        case, rounds = one.job.entry.case, one.bed.journal.remaining(one.job.entry.case)
        if not rounds:
            return
        if isinstance(error, ray.exceptions.TaskUnschedulableError):  # it went before anything began
            one.bed.waiting.append(one.job)
            return
        one.job.lost += 1
        reason = f"{type(error).__name__}: {first_line(_cause(error))}"[:300]
        if isinstance(error, ray.exceptions.RayTaskError):
            one.bed.nodes.discard(one.node.id)
            say(f"node {one.node.name} ({one.node.address}) is used no more: {reason}")
        if one.job.lost < TRIES:
            say(f"node {one.node.name} was lost with round {rounds[0] + 1} of {case.label()}, launched anew: {reason}")
            one.bed.waiting.append(one.job)
        else:
            self._add(one, Launch("crashed", f"lost with its node or worker {TRIES} times: {reason}", round=rounds[0]))

    def _cancel(self, one: Running) -> None:
        import ray

        ray.cancel(one.stream, force=True)


def _cause(error: Exception) -> BaseException:
    return getattr(error, "cause", None) or error


def _sleep() -> list[Any]:
    time.sleep(WAIT_S)
    return []


def say(message: str) -> None:
    """Tell the user, on standard error."""
    print(f"mixprof: {message}", file=sys.stderr, flush=True)
