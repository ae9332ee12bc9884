"""What a service test finds, as it is printed and written: one `Served` for each case and scenario."""

from dataclasses import field

from mixprof.data.json import Json, Message
from mixprof.data.launch import Status


class Percentile(Message, frozen=True):
    """A percentile of latencies with its distribution-free bounds."""

    share: float
    ms: float | None  # None: of queries that were never answered
    low_ms: float | None  # this and the next: None where the run is too short for it
    high_ms: float | None
    worth: float  # independent queries that its queries are worth


class Tried(Message, frozen=True):
    """A rate of the search for the largest that keeps the limit."""

    rate: float  # queries a second
    keeps: bool | None  # None: its queries were too few to tell
    launch: int = 0


class Shape(Message, frozen=True):
    """A resolution of a service whose resolutions change."""

    resolution: tuple[int, int]
    queries: int
    build_s: float  # at its first query
    first_ms: float  # that query's forward
    median_ms: float | None  # of later ones
    recompiles: int  # at later ones; of one engine for all, at any
    percentiles: tuple[Percentile, ...] = ()  # of later ones


class Served(Message, frozen=True):
    """A lowered case under one scenario."""

    case: Json
    scenario: str  # "single", "multi", "offline", "server" or "churn"
    status: Status = "ok"
    reason: str | None = None
    launch: int = 0
    rate: float | None = None  # queries a second that were scheduled
    queries: int | None = None
    seconds: float | None = None
    per_second: float | None = None  # samples that were answered
    percentiles: tuple[Percentile, ...] = ()
    early_stopping_ms: float | None = None  # MLPerf's estimate: p90 of single, else p99; None: too few queries
    early_stopping_needs: int | None = None  # queries, at least
    mean_batch: float | None = None
    padded_share: float | None = None  # of samples that were run, those of no query
    recompiles: int | None = None  # under load
    lost_cpu_share: float | None = None
    limit_ms: float | None = None
    keeps: float | None = None  # the largest rate that keeps the limit
    breaks: float | None = None  # the smallest that does not
    tried: tuple[Tried, ...] = ()
    shapes: tuple[Shape, ...] = ()
    settings: Json = field(default_factory=dict)  # how it was loaded
    simulated: bool = False
