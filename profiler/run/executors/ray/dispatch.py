"""Send cases to nodes that are free, write down each launch as it arrives, and launch anew what a node took with it."""

from __future__ import annotations

import itertools
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from mixprof.data.launch import Launch
from mixprof.data.messages import Machine
from mixprof.plan.axes import Planned
from mixprof.plan.settings import Measure
from mixprof.run.executors import node as on_node
from mixprof.run.executors.ray.cluster import Lost, Node
from mixprof.run.journal import Journal
from mixprof.run.progress import Progress

TRIES = 5  # launches of a case that may be lost before it counts as crashed
GONE_S = 10.0  # for which a node may be away before its case is given up: behind a cut cable a task never fails
WAIT_S = 1.0  # for a launch to arrive, and between two looks at which nodes are up


class Tasks(Protocol):
    """A cluster that runs cases as tasks, each a stream of launches: `cluster.RayTasks`, or a simulation."""

    def nodes(self) -> list[Node]: ...

    def start(self, node: Node, task: on_node.Task) -> Any: ...

    def ready(self, streams: list[Any], timeout_s: float) -> list[Any]:
        """Those of the streams, at least one within the time, that have a launch or are over."""

    def receive(self, stream: Any) -> Launch | None:
        """A launch, None at the end of the stream. Lost where its node or worker is gone."""

    def cancel(self, stream: Any) -> None: ...


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

    tasks: Tasks
    beds: list[Bed]
    measure: Measure
    progress: Progress
    stop: Callable[[], bool]
    newcomers: Callable[[list[Node]], None]  # hears which nodes are up
    running: dict[str, list[Running]] = field(default_factory=dict)  # by the node's id
    up: list[Node] = field(default_factory=list)
    looked: float = float("-inf")
    missed: dict[str, float] = field(default_factory=dict)  # since when a node with a case on it is not up

    def run(self) -> None:
        """Until every case has its record; after `stop()` each running launch is waited for and no other begun."""
        try:
            while self._all() or (not self.stop() and any(bed.waiting for bed in self.beds)):
                if not self.stop():
                    self._look()
                    self._send()
                self._receive()
        finally:
            for one in self._all():
                self.tasks.cancel(one.stream)

    def _all(self) -> list[Running]:
        return list(itertools.chain.from_iterable(self.running.values()))

    def _look(self) -> None:
        """See which nodes are up, at most once a second: a cluster takes milliseconds to tell of hundreds."""
        if time.monotonic() - self.looked >= WAIT_S:
            self.up, self.looked = self.tasks.nodes(), time.monotonic()
            self.newcomers(self.up)
            self._give_up()

    def _give_up(self) -> None:
        """Take what runs on a node that is away for lost, though nobody says so."""
        away = {node for node, running in self.running.items() if running} - {node.id for node in self.up}
        self.missed = {node: self.missed.get(node, self.looked) for node in away}
        for node in [node for node, since in self.missed.items() if self.looked - since >= GONE_S]:
            for one in list(self.running[node]):
                self.tasks.cancel(one.stream)
                self._lose(one, Lost("the cluster says that it is gone"))

    def _send(self) -> None:
        for bed in self.beds:
            mine = [node for node in self.up if node.id in bed.nodes]
            for node in mine if bed.waiting else ():
                while bed.waiting and self._is_free(node, bed.waiting[0].entry.case.device):
                    self._start(bed, bed.waiting.popleft(), node)
            if bed.waiting and not mine and not bed.deserted:
                say(f"{bed.name}: no node of it is up: waiting; an interrupt ends the sweep, and --resume goes on")
            bed.deserted = not mine

    def _is_free(self, node: Node, device: str) -> bool:
        """Whether nothing that a timing must not run beside runs on the node."""
        beside = [one.job.entry.case.device for one in self.running.get(node.id, ())]
        if not device.startswith("cuda"):
            return not beside
        return len(beside) < node.gpus and all(other.startswith("cuda") for other in beside)

    def _start(self, bed: Bed, job: Job, node: Node) -> None:
        case, rounds = job.entry.case, bed.journal.remaining(job.entry.case)
        task = on_node.Task(job.entry, self.measure, rounds, node.name, job.lost)
        self.progress.begin(case, rounds[0])
        self.running.setdefault(node.id, []).append(Running(bed, job, node, self.tasks.start(node, task)))

    def _receive(self) -> None:
        """Take what arrives within a second."""
        by_stream = {id(one.stream): one for one in self._all()}
        streams = [one.stream for one in by_stream.values()]
        for stream in self.tasks.ready(streams, WAIT_S) if streams else _sleep():
            self._take(by_stream[id(stream)])

    def _take(self, one: Running) -> None:
        try:
            launch = self.tasks.receive(one.stream)
        except Lost as error:
            self._lose(one, error)
            return
        if launch is None:
            self._end(one)
            return
        one.job.lost = 0
        self._add(one, launch)
        if self.stop():
            self.tasks.cancel(one.stream)
            self._end(one)

    def _end(self, one: Running) -> None:
        self.running[one.node.id].remove(one)

    def _add(self, one: Running, launch: Launch) -> None:
        one.bed.journal.add(one.job.entry.case, launch)
        self.progress.end(one.job.entry.case, launch)

    def _lose(self, one: Running, error: Lost) -> None:
        """Launch a case anew whose node, or worker there, is gone; the launches of it that arrived stay."""
        self._end(one)
        self.looked = float("-inf")
        case, rounds = one.job.entry.case, one.bed.journal.remaining(one.job.entry.case)
        if not rounds:
            return
        if error.before:
            one.bed.waiting.append(one.job)
            return
        one.job.lost += 1
        if error.refused:
            one.bed.nodes.discard(one.node.id)
            say(f"node {one.node.name} ({one.node.address}) is used no more: {error}")
        if one.job.lost < TRIES:
            say(f"node {one.node.name} was lost with round {rounds[0] + 1} of {case.label()}, launched anew: {error}")
            one.bed.waiting.append(one.job)
        else:
            self._add(one, Launch("crashed", f"lost with its node or worker {TRIES} times: {error}", round=rounds[0]))


def _sleep() -> list[Any]:
    time.sleep(WAIT_S)
    return []


def say(message: str) -> None:
    """Tell the user, on standard error."""
    print(f"mixprof: {message}", file=sys.stderr, flush=True)
