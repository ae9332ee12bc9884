"""The nouns of the suite, as plain data: no torch, no statistics."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

SCHEMA = 1

STATUSES = (
    "ok",
    "unavailable",
    "unsupported",
    "built",
    "oom",
    "timeout",
    "crashed",
    "inaccurate",
    "unstable",
    "throttled",
)


@dataclass(frozen=True)
class Case:
    """One point of a sweep. Equal cases are the same experiment."""

    model: str  # a registered name, "timm:NAME" or "package.module:factory", with its options
    lowering: str  # "eager", "compile:max-autotune", ...
    device: str  # "cpu", "cuda:0"
    dtype: str  # "float32" (TF32 off), "tf32", "float16", "bfloat16"
    layout: str  # "contiguous" or "channels_last"
    mode: str  # "hot" or "cold"
    batch: int  # images
    resolution: tuple[int, int]  # height, width: pixels for a network, positions for a mixer
    window: int | None  # side of the window or kernel; None if the model has none
    channels: int | None  # of a mixer's map; None for a network

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "resolution": list(self.resolution)}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Case:
        height, width = fields["resolution"]
        return cls(**{**fields, "resolution": (int(height), int(width))})

    @property
    def key(self) -> str:
        """A short name for this experiment: the hash of its fields."""
        return digest(self.to_json())

    def label(self) -> str:
        """The case in words, for people: every field that is not the default."""
        height, width = self.resolution
        parts = [self.model, self.lowering, self.device, self.dtype, f"b{self.batch}", f"{height}x{width}"]
        if self.window is not None:
            parts.append(f"k{self.window}")
        if self.channels is not None:
            parts.append(f"c{self.channels}")
        parts += [self.layout] * (self.layout != self._usual_layout) + [self.mode] * (self.mode != "hot")
        return " ".join(parts)

    @property
    def _usual_layout(self) -> str:
        """The only layout of a file or a function, and a module's default."""
        has_own = self.model.startswith("call:") or self.model.endswith((".onnx", ".plan"))
        return "contiguous" if has_own else "channels_last"


@dataclass(frozen=True)
class Samples:
    """Raw times of one launch. A sample is the time per forward over `forwards_per_sample` of them."""

    samples: tuple[float, ...]  # milliseconds per forward, in the order they were taken
    forwards_per_sample: int


@dataclass(frozen=True)
class Launch:
    """What one worker process produced for one case. A field that was not measured is None."""

    status: str
    reason: str | None = None
    round: int = 0
    gpu_ms: Samples | None = None
    enqueue_ms: Samples | None = None
    host_ms: Samples | None = None
    build_s: float | None = None
    build_cached: bool | None = None
    artifact_bytes: int | None = None
    memory: dict[str, int | None] | None = None
    energy: dict[str, Any] | None = None  # joules_per_image, window_s, source; or the reason for its absence
    relative_error: float | None = None
    proof: dict[str, Any] | None = None
    counts: dict[str, Any] | None = None  # params, macs, flops, uncounted_ops of the case
    environment: dict[str, Any] = field(default_factory=dict)  # what can change from launch to launch

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Launch:
        times = {
            name: Samples(tuple(fields[name]["samples"]), fields[name]["forwards_per_sample"])
            for name in ("gpu_ms", "enqueue_ms", "host_ms")
            if fields.get(name) is not None
        }
        return cls(**{**fields, **times})


@dataclass(frozen=True)
class Record:
    """A case's launches put together, one line of records.jsonl. Never a statistic."""

    case: Case
    status: str
    reason: str | None = None
    launches: tuple[Launch, ...] = ()
    build_s: float | None = None  # the slowest build among the launches: the one no cache helped
    build_cached: bool | None = None
    artifact_bytes: int | None = None
    params: int | None = None
    macs: int | None = None  # of one forward, batch included
    flops: int | None = None
    uncounted_ops: tuple[str, ...] | None = None  # when not empty, the counts are "at least"
    matrix_macs: int | None = None  # of the MACs, those of matrix units
    vector_macs: int | None = None  # and those of depth-wise convolutions and the like
    min_bytes: int | None = None  # operands and results of every operator with MACs, each once
    memory: dict[str, int | None] | None = None
    energy: dict[str, Any] | None = None  # joules_per_image, window_s, source; or the reason for its absence
    relative_error: float | None = None
    proof: dict[str, Any] | None = None
    environment: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {
            "schema": SCHEMA,
            **fields,
            "case": self.case.to_json(),
            "launches": [launch.to_json() for launch in self.launches],
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Record:
        rest = {name: value for name, value in fields.items() if name != "schema"}
        if rest.get("uncounted_ops") is not None:
            rest["uncounted_ops"] = tuple(rest["uncounted_ops"])
        case = Case.from_json(fields["case"])
        launches = tuple(Launch.from_json(launch) for launch in fields["launches"])
        return cls(**{**rest, "case": case, "launches": launches})


def digest(value: object) -> str:
    """Sixteen hexadecimal digits that are the same for equal JSON values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
