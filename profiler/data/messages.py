"""The messages of worker processes: how they end, and their answers with known keys."""

from collections.abc import Iterable
from dataclasses import field

from mixprof.data.case import is_simulated
from mixprof.data.json import Json, Message
from mixprof.data.launch import Status, StepMemory
from mixprof.data.testbed import of_devices


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
    backward_macs: int | None = None
    optimizer_bytes: int | None = None
    step_memory: StepMemory | None = None  # predicted, of a training step
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


class GpuProcess(Message, frozen=True):
    """A process that computes on a GPU."""

    pid: int  # as NVML numbers it
    used_bytes: int | None = None  # None where it is not told


class Machine(Message, frozen=True):
    """This machine, as a worker sees it."""

    devices: tuple[str, ...]  # the default one last
    versions: dict[str, str] = field(default_factory=dict)
    testbed: Json = field(default_factory=dict)
    informing: Json = field(default_factory=dict)
    no_cuda: NoDevice | None = None
    foreign: dict[str, tuple[GpuProcess, ...]] = field(default_factory=dict)  # device -> of others, where told
    simulated: str | None = None  # the figures of sim:0
    status: Status = "ok"
    job_s: float | None = None

    def testbed_of(self, devices: Iterable[str]) -> Json:
        """The testbed of cases on these devices; of simulated ones what simulates them beside this machine's CPU."""
        devices = list(devices)
        simulated = {"simulated": self.simulated} if any(map(is_simulated, devices)) else {}
        return {**of_devices(self.testbed, devices), **simulated}

    def shared(self, devices: Iterable[str]) -> str | None:
        """Which processes of others compute on these devices, in words; None where nobody knows of any."""
        words = []
        for device in sorted(set(devices) & set(self.foreign)):
            each = ", ".join(f"{process.pid}{_mebibytes(process)}" for process in self.foreign[device])
            words += [f"{device} (process {each})"] if each else []
        return " and ".join(words) or None


def _mebibytes(process: GpuProcess) -> str:
    return "" if process.used_bytes is None else f" with {process.used_bytes / 2**20:.0f} MiB"
