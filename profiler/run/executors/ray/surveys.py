"""Which testbed each node is: the nodes of a run folder are of one, and a node that joins later must be of it, too."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mixprof.data import fleet, run_folder
from mixprof.data.errors import NotTrusted, UsageError, first_line
from mixprof.data.manifest import Environment, Manifest, Origin
from mixprof.data.messages import Machine
from mixprof.plan.axes import Planned, Source
from mixprof.plan.settings import Measure
from mixprof.run.executors import node as on_node
from mixprof.run.executors.ray import cluster
from mixprof.run.executors.ray.cluster import Node
from mixprof.run.executors.ray.dispatch import Bed, say
from mixprof.run.journal import Journal
from mixprof.run.session import manifest_of, refuse_other


@dataclass(frozen=True)
class Asker:
    """What a node is asked, and what its answer means."""

    planned: list[Planned]
    measure: Measure
    code: Mapping[str, str]
    made: list[Manifest] = field(default_factory=list)  # the first, with what does not depend on the machine

    def ask(self, node: Node) -> Any:
        """The survey of a node, as a task."""
        users = {
            entry.case.model: _bare(entry.source)
            for entry in self.planned
            if entry.source.user or entry.source.artifact is not None
        }
        return cluster.on(node, on_node.survey, None).remote(self.measure, users)

    def answer(self, node: Node, asked: Any) -> Machine | None:
        """The node's machine; None where it is gone. UsageError for one that cannot run these cases."""
        import ray

        try:
            machine: Machine = ray.get(asked)
            return machine
        except ray.exceptions.RayTaskError as error:
            raise UsageError(f"--on ray: node {node.name} ({node.address}): {first_line(error.cause)}") from None
        except ray.exceptions.RayError as error:
            say(f"node {node.name} ({node.address}) was lost before it was surveyed: {type(error).__name__}")
            return None

    def manifest(self, label: str | None, machine: Machine) -> Manifest:
        """The manifest of a run on such machines that begins now."""
        if not self.made:
            self.made.append(manifest_of(self.planned, self.measure, machine, self.code))
        devices = {entry.case.device for entry in self.planned}
        environment = Environment(machine.testbed_of(devices), machine.informing)
        return replace(self.made[0], environment=environment, versions=machine.versions, accelerator=label)

    def sent(self, entry: Planned) -> Planned:
        """A case as it travels: without what only this process can ask."""
        return replace(entry, source=_bare(entry.source))


def _bare(source: Source) -> Source:
    return replace(source, check=_no_check, facts={})


def _no_check(**_: object) -> str | None:
    """Stands for a source's check, which was made before the case was sent."""
    return None


@dataclass
class Surveys:
    """The testbeds of a sweep, and the nodes that were asked which they are."""

    asker: Asker
    run: Path
    beds: list[Bed] = field(default_factory=list)
    asked: dict[str, tuple[Node, Any]] = field(default_factory=dict)  # by the node's id; done: None

    def pick(self, chosen: Mapping[str | None, list[Node]]) -> dict[str | None, tuple[str, list[tuple[Node, Machine]]]]:
        """Survey all nodes at once; of each label the testbed with the most nodes is measured, the others are said."""
        picked = {}
        asked = {label: [(node, self.asker.ask(node)) for node in nodes] for label, nodes in chosen.items()}
        for label, surveys in asked.items():
            machines: dict[str, list[tuple[Node, Machine]]] = {}
            for node, survey in surveys:
                self.asked[node.id] = (node, None)
                if (machine := self.asker.answer(node, survey)) is not None:
                    name = fleet.testbed_name(self.asker.manifest(label, machine))
                    machines.setdefault(name, []).append((node, machine))
            if not machines:
                raise UsageError(f"--on ray: no node of {label or 'the cluster'} answered: see `ray status`")
            best = max(sorted(machines), key=lambda name: len(machines[name]))
            for name in sorted(set(machines) - {best}):
                nodes = ", ".join(node.name for node, _ in machines[name])
                say(f"{nodes} left out: of another testbed, {name}, than {best}; --accelerators with a label takes it")
            picked[label] = (best, machines[best])
        return picked

    def open(self, picked: Mapping[str | None, tuple[str, list[tuple[Node, Machine]]]]) -> None:
        """Begin, or go on with, the run folder of each testbed."""
        self.beds.extend(self._bed(label, name, machines) for label, (name, machines) in picked.items())

    def _bed(self, label: str | None, name: str, machines: list[tuple[Node, Machine]]) -> Bed:
        """A testbed's run folder, begun or gone on with, and its nodes."""
        (first, machine), folder = machines[0], self.run / name
        manifest = self.asker.manifest(label, machine)
        self._refuse_others(label, name)
        if (folder / run_folder.MANIFEST).exists():
            stored = run_folder.read_manifest(folder)
            refuse_other(folder, stored, manifest)
            manifest = stored
            for message in run_folder.set_torn_lines_aside(folder):
                say(message)
        folder.mkdir(exist_ok=True)
        run_folder.write_manifest(folder, _with_origins(manifest, machines))
        journal = Journal.open(folder, self.asker.measure.rounds, self.asker.measure.layers)
        return Bed(name, label, journal, {node.id for node, _ in machines}, first, machine)

    def _refuse_others(self, label: str | None, name: str) -> None:
        for run in fleet.runs_in(self.run) if fleet.is_fleet(self.run) else []:
            if run.name != name and run_folder.read_manifest(run).accelerator == label:
                raise NotTrusted(f"'{run}' was measured on another testbed than {name}, which is here: use a new --out")

    def hear(self, up: list[Node]) -> None:
        """Survey nodes that joined, and take those of our testbeds."""
        import ray

        labels = {bed.label for bed in self.beds}
        for node in up:
            if node.id not in self.asked and (None in labels or node.label in labels):
                self.asked[node.id] = (node, self.asker.ask(node) if node.cpus else None)
        for node, survey in list(self.asked.values()):
            if survey is not None and ray.wait([survey], timeout=0)[0]:
                self.asked[node.id] = (node, None)
                self._join(node, survey)

    def _join(self, node: Node, survey: Any) -> None:
        try:
            machine = self.asker.answer(node, survey)
        except UsageError as error:
            say(f"{error}; it is not used")
            return
        for bed in self.beds:
            if machine is None:
                return
            if bed.label in (None, node.label) and bed.name == fleet.testbed_name(
                self.asker.manifest(bed.label, machine)
            ):
                manifest = run_folder.read_manifest(bed.journal.run)
                run_folder.write_manifest(bed.journal.run, _with_origins(manifest, [(node, machine)]))
                bed.nodes.add(node.id)
                say(f"node {node.name} ({node.address}) joined {bed.name}")


def _with_origins(manifest: Manifest, machines: list[tuple[Node, Machine]]) -> Manifest:
    """The manifest with these nodes among those that its launches come from."""
    created = manifest.created or time.strftime("%Y-%m-%dT%H:%M:%S%z")
    origins = {node.name: Origin(created, machine.informing) for node, machine in machines}
    return replace(manifest, origins={**(manifest.origins or {}), **origins})
