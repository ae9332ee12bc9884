"""A case's launches put together: a line of records.jsonl."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mixprof.data.case import Case
from mixprof.data.json import Json, decode, to_builtins
from mixprof.data.launch import Deployment, Energy, Launch, LaunchEnvironment, Memory, Status, StepMemory

SCHEMA = 2  # of a run folder's files


@dataclass(frozen=True)
class Record:
    """A case's launches put together. Never a statistic."""

    case: Case
    status: Status
    reason: str | None = None
    launches: tuple[Launch, ...] = ()
    build_s: float | None = None  # the slowest build among the launches: the one no cache helped
    build_cached: bool | None = None
    artifact_bytes: int | None = None
    params: int | None = None
    macs: int | None = None  # this and the next: see Counts
    flops: int | None = None
    uncounted_ops: tuple[str, ...] | None = None
    matrix_macs: int | None = None
    vector_macs: int | None = None
    min_bytes: int | None = None
    backward_macs: int | None = None
    optimizer_bytes: int | None = None
    memory: Memory | None = None  # the largest of each figure over the launches
    energy: Energy | None = None
    deployment: Deployment | None = None  # the last launch's
    relative_error: float | None = None  # this and the next two: the largest
    gradient_error: float | None = None
    update_error: float | None = None
    step_memory: StepMemory | None = None  # this and the next: the last launch's
    predicted_step_memory: StepMemory | None = None
    proof: Json | None = None
    environment: LaunchEnvironment = field(default_factory=LaunchEnvironment)
    metrics: dict[str, float | None] = field(default_factory=dict)

    def to_json(self) -> Json:
        return {"schema": SCHEMA, **to_builtins(self), "case": self.case.to_json()}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Record":
        """ValueError for fields that are no record's."""
        return decode({name: value for name, value in fields.items() if name != "schema"}, cls)


def assemble(case: Case, launches: list[Launch]) -> Record:
    """A case's launches as one record. The first launch that is not ok gives it status and reason."""
    last = next((launch for launch in launches if launch.status != "ok"), launches[-1])
    builds = [launch for launch in launches if launch.build_s is not None]
    slowest = max(builds, key=lambda launch: launch.build_s or 0.0, default=None)
    return Record(
        case=case,
        status=last.status,
        reason=last.reason,
        launches=tuple(launches),
        build_s=slowest.build_s if slowest else None,
        build_cached=slowest.build_cached if slowest else None,
        artifact_bytes=(slowest or last).artifact_bytes,
        **(vars(last.counts) if last.counts else {}),
        memory=_largest([launch.memory for launch in launches if launch.memory is not None]),
        energy=last.energy,
        deployment=last.deployment,
        relative_error=_worst(launches, "relative_error"),
        gradient_error=_worst(launches, "gradient_error"),
        update_error=_worst(launches, "update_error"),
        step_memory=last.step_memory,
        predicted_step_memory=last.predicted_step_memory,
        proof=(slowest or last).proof,
        environment=last.environment,
        metrics=last.metrics,
    )


def _worst(launches: list[Launch], name: str) -> float | None:
    """The largest of an error over the launches that have it."""
    errors: list[float] = [getattr(launch, name) for launch in launches if getattr(launch, name) is not None]
    return max(errors, default=None)


def with_layers(record: Record, profiled: list[Launch]) -> Record:
    """The record with the times of its layers, or why there are none: they change nothing else of it."""
    if not profiled or record.status != "ok":
        return record
    last = profiled[-1]
    reason = last.status + (f": {last.reason}" if last.reason else "")
    more = last.proof if last.status == "ok" and last.proof else {"layers_missing": reason}
    return replace(record, proof={**(record.proof or {}), **more})


def _largest(memories: list[Memory]) -> Memory | None:
    """The largest of each figure over the launches."""
    if not memories:
        return None
    known = {
        name: [value for memory in memories if (value := getattr(memory, name)) is not None]
        for name in vars(memories[0])
    }
    return Memory(**{name: max(values, default=None) for name, values in known.items()})
