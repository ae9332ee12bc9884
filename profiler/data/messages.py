"""The messages of worker processes: how they end, and their answers with known keys."""

from __future__ import annotations

import msgspec

from mixprof.data.json import Json, Message
from mixprof.data.launch import Status


class Progress(Message, frozen=True):
    """A line of a fork server: it is ready, a job has begun or ended."""

    ready: int | None = None  # its process
    pid: int | None = None  # of the job
    exit: int | None = None  # of the job; the negative of a signal


class Counted(Message, frozen=True):
    """The costs of a case as a worker counted them, or the reason why there are none."""

    status: Status = "ok"
    reason: str | None = None
    params: int | None = None
    macs: int | None = None
    flops: int | None = None
    macs_by_op: dict[str, int] | None = None
    uncounted_ops: tuple[str, ...] | None = None
    matrix_macs: int | None = None
    vector_macs: int | None = None
    min_bytes: int | None = None
    predicted_peak_bytes: int | None = None
    weights_bytes: int | None = None
    input_bytes: int | None = None
    counted_on: str | None = None  # "meta", "fake" or "cpu"
    tree: list[Json] | None = None  # by module, where that was asked for
    memory_reason: str | None = None  # why the three sizes above are unknown
    job_s: float | None = None

    @property
    def peak_bytes(self) -> int | None:
        """Weights, input and the eager forward's largest set of live activations."""
        parts = (self.weights_bytes, self.input_bytes, self.predicted_peak_bytes)
        return None if None in parts else sum(part for part in parts if part is not None)


class NoDevice(Message, frozen=True):
    """Why no CUDA device can be used."""

    reason: str  # in one line, and what to do
    failed: bool = False  # a driver is installed and does not start, or torch cannot use the devices it offers


class Machine(Message, frozen=True):
    """This machine, as a worker sees it."""

    devices: tuple[str, ...]  # the default one last
    versions: dict[str, str] = msgspec.field(default_factory=dict)
    testbed: Json = msgspec.field(default_factory=dict)
    informing: Json = msgspec.field(default_factory=dict)
    no_cuda: NoDevice | None = None
    status: Status = "ok"
    job_s: float | None = None
