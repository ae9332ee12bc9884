"""A simulated cluster for the driver of `--on ray`: nodes run cases in virtual time, die at random and come back."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mixprof.data.launch import Launch
from mixprof.data.messages import Machine
from mixprof.plan.axes import Planned
from mixprof.plan.settings import Measure
from mixprof.run.executors import node as on_node
from mixprof.run.executors.ray.cluster import Lost, Node
from mixprof.run.executors.ray.dispatch import Bed, Dispatch, Job
from mixprof.run.executors.ray.surveys import Asker, Surveys

AWAY_S = 30.0  # for which a node that died is away


@dataclass(eq=False)
class Stream:
    """The launches of a case on a node."""

    node: Node
    rounds: Iterator[int]
    task: on_node.Task
    left: int  # launches
    stillborn: bool = False  # sent to a node that was gone already
    began: float = 0.0


@dataclass
class SimulatedTasks:
    """Stands for `cluster.RayTasks`. A launch takes a drawn time; its node dies with it with a small chance."""

    alive: dict[str, Node]
    launch: Callable[[on_node.Task, int], Launch]
    chance: random.Random
    deaths: float = 0.0  # of a launch
    silence: float = 0.0  # of a launch, to be of a node that goes without anybody hearing of its tasks
    now: float = 0.0
    lost: int = 0
    events: list[tuple[float, int, Any]] = field(default_factory=list)  # of streams, and of nodes that come back
    number: Iterator[int] = field(default_factory=itertools.count)
    cancelled: set[Stream] = field(default_factory=set)

    def nodes(self) -> list[Node]:
        return list(self.alive.values())

    def start(self, node: Node, task: on_node.Task) -> Stream:
        stream = Stream(node, iter(task.rounds), task, len(task.rounds), node.id not in self.alive)
        self._next(stream)
        return stream

    def _next(self, stream: Stream) -> None:
        stream.began = self.now
        if stream.left and not stream.stillborn and self.chance.random() < self.silence:
            self._lose(stream.node)
            return
        heapq.heappush(self.events, (self.now + self.chance.uniform(1, 10), next(self.number), stream))

    def ready(self, streams: list[Stream], timeout_s: float) -> list[Stream]:
        """One at a time: the dearest case for the driver."""
        while self.events:
            self.now, _, event = heapq.heappop(self.events)
            if isinstance(event, Stream) and event not in self.cancelled:
                return [event]
            if isinstance(event, Node):
                self.alive[event.id] = event
        return []

    def receive(self, stream: Stream) -> Launch | None:
        if stream.stillborn:
            raise Lost("TaskUnschedulableError: simulated", before=True)
        round = next(stream.rounds, None)
        if round is None:
            return None
        if self.chance.random() < self.deaths:
            self._lose(stream.node)
            raise Lost("NodeDiedError: simulated")
        launch = self.launch(stream.task, round)
        stream.left -= 1
        lost = stream.task.lost if round == stream.task.rounds[0] and stream.task.lost else None
        place = replace(launch.environment, origin=stream.node.name, began_s=stream.began, ended_s=self.now, lost=lost)
        self._next(stream)
        return replace(launch, round=round, environment=place)

    def _lose(self, node: Node) -> None:
        """A node goes; another joins in its place."""
        del self.alive[node.id]
        back = replace(node, id=f"{next(self.number):08d}-{node.label}")
        heapq.heappush(self.events, (self.now + AWAY_S, next(self.number), back))
        self.lost += 1

    def cancel(self, stream: Stream) -> None:
        assert stream.node.id not in self.alive, "nothing else is ended early here"
        self.cancelled.add(stream)


@dataclass(frozen=True)
class SimulatedAsker(Asker):
    """Every node is the machine that its label names."""

    def ask(self, node: Node) -> Machine:
        return Machine(("cpu",), {"torch": "2.13.0"}, {"cpu": node.label, "threads": 2}, {"hostname_hash": node.id})

    def answer(self, node: Node, asked: Machine) -> Machine:
        return asked


class Silent:
    """A progress that nobody sees."""

    def begin(self, *_: object) -> None:
        pass

    def end(self, *_: object) -> None:
        pass


def nodes_of(labels: list[str], each: int) -> list[Node]:
    return [
        Node(f"{number:08d}-{label}", f"10.0.0.{number}", label, 1.0, 0) for label in labels for number in range(each)
    ]


def drive(planned: list[Planned], run: Path, measure: Measure, tasks: SimulatedTasks) -> list[Bed]:
    """A sweep as `mixprof.run.fleet` dispatches it: the same cases on the nodes of each label."""
    by_label: dict[str | None, list[Node]] = {}
    for node in tasks.nodes():
        by_label.setdefault(node.label, []).append(node)
    asker = SimulatedAsker(planned, measure, {})
    surveys = Surveys(asker, run)
    surveys.open(surveys.pick(by_label))

    def newcomers(up: list[Node]) -> None:
        for bed in surveys.beds:
            bed.nodes.update(node.id for node in up if node.label == bed.label)

    for bed in surveys.beds:
        bed.waiting.extend(Job(asker.sent(entry)) for entry in planned if bed.journal.remaining(entry.case))
    Dispatch(tasks, surveys.beds, measure, Silent(), lambda: False, newcomers).run()
    return surveys.beds
