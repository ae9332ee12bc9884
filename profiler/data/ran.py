"""What one forward ran: the kernels of its device, or where that is a CPU its operators, and what their names tell."""

from dataclasses import field

from mixprof.data.json import Message


class Kernel(Message, frozen=True):
    """All runs of one kernel, or operator of a CPU, in a forward."""

    name: str
    count: int
    us: float  # of the device; of an operator without those that it calls
    share: float  # of all


class Ran(Message, frozen=True):
    """One forward under the profiler, outside all timing. A word that no name tells is absent, not guessed."""

    of: str  # "kernels" of a GPU, or "operators" of a CPU
    launches: int
    us: float
    kernels: tuple[Kernel, ...]  # the longest first; the rest is in `launches` and `us`
    attention: tuple[str, ...] = ()  # backends
    convolution: tuple[str, ...] = ()
    product: tuple[str, ...] = ()
    tf32: bool | None = None  # whether a product rounded to TF32; None where nothing tells: a CPU, another dtype
    transposes: int = 0  # copies into another layout
    transposes_share: float = 0.0
    role_shares: dict[str, float] = field(default_factory=dict)  # of eager modules of ours
