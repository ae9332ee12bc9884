"""What one worker process produced for one case: raw samples and plain figures."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mixprof.data.json import Json, Message, decode, to_builtins

Status = Literal[
    "ok", "unavailable", "unsupported", "built", "oom", "timeout", "crashed", "inaccurate", "unstable", "throttled"
]  # fmt: skip


class Samples(Message, frozen=True):
    """Raw times of one launch. A sample is the time per forward over `forwards_per_sample` of them."""

    samples: tuple[float, ...]  # milliseconds per forward, in the order they were taken
    forwards_per_sample: int


ENQUEUE_BOUND = 0.9  # of the time on the device: from there on the host sets the pace


def is_host_bound(enqueue_ms: float, gpu_ms: float) -> bool:
    """Whether forwards one after another wait for the host and not for the device."""
    return enqueue_ms >= ENQUEUE_BOUND * gpu_ms


class Queued(Message, frozen=True):
    """How the forwards of a GPU's samples were enqueued."""

    launches: int | None  # places of the queue that a forward takes; None where it waits for the device by itself
    gated: bool  # all of a queue waited until the last was enqueued; else the host's gaps are in gpu_ms


class Memory(Message, frozen=True):
    """Bytes, each of a kind of its own: they do not compare."""

    allocator_peak_bytes: int | None = None
    process_peak_bytes: int | None = None
    weights_bytes: int | None = None
    predicted_peak_bytes: int | None = None  # of the allocator, in eager mode
    cuda_allocated_bytes: int | None = None
    cuda_reserved_bytes: int | None = None
    cuda_graph_pool_bytes: int | None = None


class StepMemory(Message, frozen=True):
    """Bytes of a training step at its peak, by category; predicted on fake tensors or measured on the device."""

    weights_bytes: int | None = None
    gradients_bytes: int | None = None
    optimizer_bytes: int | None = None  # of its state: two moments for AdamW
    activations_bytes: int | None = None  # that autograd saves for the backward
    temporaries_bytes: int | None = None  # the rest of the peak
    peak_bytes: int | None = None
    activations_by_module: dict[str, int] | None = None  # dotted name -> bytes that its own forward saves


class Energy(Message, frozen=True):
    """Joules of an image, or the reason why there are none."""

    joules_per_image: float | None = None
    window_s: float | None = None
    source: str | None = None  # "nvml" or "rapl"
    reason: str | None = None


class Deployment(Message, frozen=True):
    """An artifact in a process of its own, or the reason why there are no figures."""

    cold_start_s: float | None = None  # from the start of the process to its first result, the next three within
    import_s: float | None = None  # of the engine's packages
    load_s: float | None = None
    first_ms: float | None = None
    peak_bytes: int | None = None  # of the process
    reason: str | None = None


class Counts(Message, frozen=True):
    """The costs of one forward, batch included, as they are counted without running it."""

    params: int | None = None
    macs: int | None = None
    flops: int | None = None
    uncounted_ops: tuple[str, ...] | None = None  # when not empty, the counts are "at least"
    matrix_macs: int | None = None  # of the MACs, those of matrix units
    vector_macs: int | None = None  # and those of depth-wise convolutions and the like
    min_bytes: int | None = None  # operands and results of every operator with MACs, each once
    backward_macs: int | None = None  # of a training step: of `macs`, those of its backward
    optimizer_bytes: int | None = None  # read and written by one update


class LaunchEnvironment(Message, frozen=True):
    """Conditions of a launch, which change from one to the next, and where its time went."""

    page_faults: int | None = None
    involuntary_switches: int | None = None
    dropped_samples: int | None = None  # before the steady state
    clocks: Json | None = None  # of a GPU, from NVML
    flags: Json | None = None  # of torch, as they were after timing
    measure_s: float | None = None
    lost_cpu_share: float | None = None  # of the launch's CPU time, to others
    others_cpus: float | None = None
    governor: str | None = None
    cooled_s: float | None = None  # waited for a GPU to cool down
    built_s: float | None = None
    prepare_s: float | None = None
    wall_s: float | None = None
    start_s: float | None = None
    tries: int | None = None
    origin: str | None = None  # the node of a cluster, or the run before a merge: where rounds of one number are one
    began_s: float | None = None  # this and the next: Unix time, on a cluster's node
    ended_s: float | None = None
    lost: int | None = None  # launches of this round that were lost with their nodes before


@dataclass(frozen=True)
class Launch:
    """What one worker process produced for one case. A field that was not measured is None."""

    status: Status
    reason: str | None = None
    round: int = 0
    gpu_ms: Samples | None = None
    enqueue_ms: Samples | None = None
    host_ms: Samples | None = None
    control_ms: Samples | None = None  # of a cold case: as gpu_ms, a spin in the place of the flush
    queued: Queued | None = None
    build_s: float | None = None
    build_cached: bool | None = None
    artifact_bytes: int | None = None
    memory: Memory | None = None
    energy: Energy | None = None
    deployment: Deployment | None = None
    relative_error: float | None = None
    parts: dict[str, Samples] | None = None  # of a training step, by "zero_grad", "forward", "backward", "optimizer"
    gradient_error: float | None = None  # largest relative error of a parameter's gradient against float64
    update_error: float | None = None  # of the parameters after one step, against the same step in float64
    step_memory: StepMemory | None = None  # measured
    predicted_step_memory: StepMemory | None = None
    proof: Json | None = None  # of the lowering
    counts: Counts | None = None
    environment: LaunchEnvironment = field(default_factory=LaunchEnvironment)
    metrics: dict[str, float | None] = field(default_factory=dict)  # by the names of those that METRICS adds

    def to_json(self) -> Json:
        fields: Json = to_builtins(self)
        return fields

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Launch":
        """ValueError for fields that are no launch's."""
        return decode(fields, cls)
