"""The files of a run folder that are written whole: its manifest, its devices' peaks, its engines' cross-check."""

from dataclasses import field

from mixprof.data.case import Case
from mixprof.data.git import Commit
from mixprof.data.json import Json, Message


class Sweep(Message, frozen=True):
    """The cases of a sweep: a run goes on with no others."""

    cases: int | None = None
    digest: str | None = None
    shards: tuple[str, ...] | None = None  # "3/16": the parts of it that are here; None: all of it


class Environment(Message, frozen=True):
    """The machine of a run."""

    testbed: Json = field(default_factory=dict)  # decides whether two results compare
    informing: Json = field(default_factory=dict)  # may explain a difference and forbids no comparison


class Origin(Message, frozen=True):
    """A run before it was merged with others of its testbed."""

    created: str | None = None
    informing: Json = field(default_factory=dict)
    shards: tuple[str, ...] | None = None


class Content(Message, frozen=True):
    """A file among the models, or a user's code, and its feed."""

    sha256: str
    inputs_sha256: str | None
    shapes: dict[str, tuple[int, ...] | None]


class Manifest(Message, frozen=True):
    """The sweep, settings, machine, versions, files and models of a run."""

    sweep: Sweep
    measure: Json  # the fields of Measure, of whichever version wrote them
    environment: Environment
    versions: dict[str, str]
    artifacts: dict[str, Content] = field(default_factory=dict)
    models: dict[str, Json] | None = None  # the facts of each; None in a run that is older than these
    lowerings: dict[str, Json] | None = None
    created: str | None = None  # 2026-01-31T12:00:00+0000
    commit: Commit | None = None  # of the folder that it was started in
    accelerator: str | None = None  # the label by which a cluster's nodes were chosen
    origins: dict[str, Origin] | None = None  # of a merged run, by the name that its launches have for each


class Peaks(Message, frozen=True):
    """The most that a device can do in one dtype."""

    device: str
    dtype: str
    matrix_flops_per_s: float
    vector_flops_per_s: float
    copy_bytes_per_s: float
    cached_copy_bytes_per_s: float | None = None
    cache_bytes: int | None = None
    overhead_s: float | None = None  # of one operator
    host_overhead_s: float | None = None  # on a GPU, of it that of the host, and in a graph that of the device
    device_overhead_s: float | None = None
    best: dict[str, str] | None = None  # the candidate that was the fastest, by the peak it gives
    lost_cpu_share: float | None = None


class Checked(Message, frozen=True):
    """An engine's time in the run beside ours and trtexec's now."""

    case: Case
    mark: str  # "agreed", "disagreed" or "not checked"
    reason: str | None = None
    flavour: str | None = None
    tensorrt_version: str | None = None
    engine_sha256: str | None = None
    recorded_ms: float | None = None
    ratio: float | None = None  # our time over trtexec's
    ours_ms: float | None = None
    trtexec_ms: float | None = None
    times_ms: tuple[tuple[tuple[str, float], ...], ...] | None = None  # of each block, in the order of its turns
    command: str | None = None


class CrossCheck(Message, frozen=True):
    """The engines of a run timed again, in turns with trtexec."""

    cases: tuple[Checked, ...]
    created: str | None = None
    tolerance: float | None = None
    blocks: int | None = None
    seed: int | None = None
    programs: dict[str, str] | None = None
