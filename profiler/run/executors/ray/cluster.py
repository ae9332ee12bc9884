"""A Ray cluster as a sweep sees it: its nodes, their labels, and a function that runs on one of them."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from mixprof.data.errors import UsageError, first_line, one_line
from mixprof.data.launch import Launch
from mixprof.data.parsing import nearest
from mixprof.run.executors import node as on_node

LABEL, RESOURCE = "ray.io/accelerator-type", "accelerator_type:"
KNOCK_S = 10.0
NEVER_SENT = [".git", ".venv", "runs", "__pycache__"]
INSTALL = "--on ray: Ray is not installed: pip install 'mixprof[ray]'"


@dataclass(frozen=True)
class Node:
    """A node that is up."""

    id: str  # of Ray, in full
    address: str
    label: str | None  # of its accelerator
    cpus: float
    gpus: int

    @property
    def name(self) -> str:
        """A short name: that of its launches' origin."""
        return self.id[:8]

    def can(self, devices: Iterable[str]) -> bool:
        """Whether it has what cases on these devices need."""
        return self.cpus > 0 and (self.gpus > 0 or not any(device.startswith("cuda") for device in devices))


def connect(address: str | None, send_folder: bool) -> None:
    """Join a cluster. UsageError without Ray, and where no cluster answers.

    address: host:port; None for the cluster of this machine. send_folder: the current one goes to the nodes.
    """
    try:
        import ray
    except ImportError as error:
        raise UsageError(INSTALL) from error
    environment: dict[str, Any] = {"working_dir": os.getcwd(), "excludes": NEVER_SENT} if send_folder else {}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    wanted = address or os.environ.get("RAY_ADDRESS") or "auto"
    try:
        _knock(wanted)
        ray.init(wanted, runtime_env=environment, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # of many types, its own and those of sockets and files
        raise UsageError(
            f"--on ray: got no cluster at '{wanted}' ({one_line(error)}), expected the host:port that `ray start "
            "--head` prints, asked for on a machine of that cluster"
        ) from None
    finally:
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray puts its own in the place of ours


def _knock(address: str) -> None:
    """OSError where nothing listens at host:port: Ray itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), KNOCK_S).close()


def leave() -> None:
    """Part with the cluster: what still runs there for this sweep is ended."""
    import ray

    ray.shutdown()


def nodes() -> list[Node]:
    """The nodes that are up."""
    import ray

    return [_node(fields) for fields in ray.nodes() if fields["Alive"]]


def _node(fields: dict[str, Any]) -> Node:
    resources = fields["Resources"]
    labelled = [name.removeprefix(RESOURCE) for name in resources if name.startswith(RESOURCE)]
    label = fields.get("Labels", {}).get(LABEL) or next(iter(labelled), None)
    address = str(fields["NodeManagerAddress"])
    return Node(fields["NodeID"], address, label, resources.get("CPU", 0.0), int(resources.get("GPU", 0)))


def chosen(accelerators: tuple[str, ...], devices: Iterable[str], known: list[Node]) -> dict[str | None, list[Node]]:
    """The nodes of each accelerator, or those of any that can run these devices. UsageError where there are none."""
    able = [node for node in known if node.can(devices)]
    labels = sorted({node.label for node in able if node.label})
    if unknown := [name for name in accelerators if name not in labels]:
        raise UsageError(
            f"--accelerators: got '{unknown[0]}', expected {nearest(unknown[0], labels) or 'a label'} of the "
            f"{len(able)} nodes that can run {', '.join(sorted(devices))}"
        )
    if accelerators:
        return {label: [node for node in able if node.label == label] for label in accelerators}
    if not able:
        raise UsageError(f"--on ray: none of {len(known)} nodes can run {', '.join(sorted(devices))}: see `ray status`")
    if len(labels) > 1:
        raise UsageError(f"--on ray: got nodes with {', '.join(labels)}, expected --accelerators with some of them")
    return {None: able}


def on(node: Node, function: Callable[..., Any], device: str | None) -> Any:
    """The function as a task of a node, with all of what its timing must not share; None: it times nothing.

    Ray never repeats a task by itself: what is lost is launched anew where it can be said.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    gpu = device is not None and device.startswith("cuda")
    cpus = 0 if device is None else node.cpus / node.gpus if gpu else node.cpus
    cpus = int(cpus) if cpus >= 1 else cpus
    return ray.remote(function).options(
        num_cpus=cpus,
        num_gpus=int(gpu),
        max_retries=0,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
    )


class Lost(Exception):
    """A task whose node or worker is gone, or that could not be carried out; the message says how.

    before: its node went before anything began. refused: the node cannot run it.
    """

    def __init__(self, reason: str, *, before: bool = False, refused: bool = False):
        super().__init__(reason[:300])
        self.before, self.refused = before, refused


class RayTasks:
    """Cases as tasks of the cluster that was joined."""

    def nodes(self) -> list[Node]:
        return nodes()

    def start(self, node: Node, task: on_node.Task) -> Any:
        """Begin a case; its launches arrive one by one."""
        return on(node, on_node.launches, task.entry.case.device).remote(task)

    def ready(self, streams: list[Any], timeout_s: float) -> list[Any]:
        """The streams that have a launch or are over: one within the time, and all others that have by then."""
        import ray

        if ray.wait(streams, num_returns=1, timeout=timeout_s)[0]:
            return list(ray.wait(streams, num_returns=len(streams), timeout=0)[0])
        return []

    def receive(self, stream: Any) -> Launch | None:
        """The next launch; None at the end. Raises Lost."""
        import ray

        try:
            launch: Launch = ray.get(next(stream))
            return launch
        except StopIteration:
            return None
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None) or error
            raise Lost(
                f"{type(error).__name__}: {first_line(cause)}",
                before=isinstance(error, ray.exceptions.TaskUnschedulableError),
                refused=isinstance(error, ray.exceptions.RayTaskError),
            ) from error

    def cancel(self, stream: Any) -> None:
        """End a case and its worker."""
        import ray

        ray.cancel(stream, force=True)
