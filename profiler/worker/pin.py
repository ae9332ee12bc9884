"""What a case is pinned to before its model is built, again after its code was imported, and after it was timed."""

from __future__ import annotations

from mixprof import lowerings
from mixprof.data.case import Case
from mixprof.data.json import Json
from mixprof.machine import flags, process


def prepare(case: Case, threads: int) -> None:
    """Pin what a case depends on. An engine runs without torch's CUDA, and without its flags."""
    if lowerings.entry_of(case.lowering).engine:
        process.prepare_cpu(threads)
        process.refuse_tf32(case.device, case.dtype)
    else:
        process.prepare(case.device, case.dtype, threads)


def flags_of(case: Case, threads: int) -> Json:
    """The flags of torch that a case is timed with; none for what torch does not run."""
    entry, options = lowerings.parse(case.lowering)
    return {} if entry.engine else flags.wanted(case.dtype, threads, forces_attention="sdpa" in options)


def changed_flags(values: Json) -> str | None:
    """Why times are not of the case: its forward sets flags of torch. None where it does not."""
    changed = flags.changed(values)
    return changed and f"its forward sets {changed}: take that out, or time the dtype that it means"
