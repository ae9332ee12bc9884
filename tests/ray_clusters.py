"""A real Ray cluster of several nodes on this machine, each with a lock folder of its own, as machines have."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

QUICK_TO_NOTICE = {
    "health_check_initial_delay_ms": 5000,
    "health_check_period_ms": 1000,
    "health_check_failure_threshold": 5,
}


class Nodes:
    """The nodes of a cluster, by a name."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "include_dashboard": False, "_system_config": QUICK_TO_NOTICE},
        )
        self.nodes: dict[str, Any] = {}

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self, name: str, label: str | None = None, **resources: Any) -> None:
        own = self.folder / name
        own.mkdir(exist_ok=True)
        labels = {"ray.io/accelerator-type": label} if label else {}
        arguments = {"num_cpus": 1, **resources, "labels": labels, "env_vars": {"TMPDIR": str(own)}}
        self.nodes[name] = self.cluster.add_node(wait=True, **arguments)

    def have(self, *labels: str) -> None:
        """See to a node of each label."""
        for label in labels:
            if f"a-{label}" not in self.nodes:
                self.add(f"a-{label}", label)

    def kill(self, name: str) -> None:
        """End a node as a power cut does: every process of it, at once."""
        node = self.nodes.pop(name)
        started = [each.process.pid for kind in node.all_processes.values() for each in kind]
        for pid in [*started, *descendants(started)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def descendants(pids: list[int]) -> list[int]:
    """The processes that these started, and those that they did."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    known, below = set(pids), [-1]
    while below:
        below = [pid for pid, parent in parents.items() if parent in known and pid not in known]
        known.update(below)
    return sorted(known - set(pids))


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Nodes]:
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "180")  # of a machine that is busy
    nodes = Nodes(folder)
    try:
        yield nodes
    finally:
        nodes.cluster.shutdown()
