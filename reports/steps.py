"""The parts of training steps, how long backward takes over forward, and bytes by category: cells of the frame."""

from collections.abc import Callable, Mapping, Sequence
from operator import truediv
from typing import Any

import pandas as pd

from mixprof.data.launch import Launch, Samples
from mixprof.data.record import Record
from mixprof.reports.latencies import moderate
from mixprof.reports.timed import estimated

WHOLE, REAL = "Int64", "float64"
PARTS = ("zero_grad", "forward", "backward", "optimizer")
RATIO = "backward_over_forward"
KINDS = ("weights", "gradients", "optimizer", "activations", "temporaries")  # of the bytes of a step's peak
MEMORY = {"step": "step_memory", "predicted_step": "predicted_step_memory"}  # columns begin so -> field of a record
ENDS = {"": "latency_ms", "_low": "latency_low_ms", "_high": "latency_high_ms"}
ESTIMATE = {
    **dict.fromkeys((*ENDS.values(), "launches", "log_error", "log_freedom", "shared_variance"), REAL),
    **dict.fromkeys(("rounds", "medians_ms"), "object"),
}
COLUMNS = {
    **{f"{part}{end}_ms": REAL for part in PARTS for end in ENDS},
    **{f"{RATIO}{end}": REAL for end in ENDS},
    **{f"{begin}_{kind}_bytes": WHOLE for begin in MEMORY for kind in (*KINDS, "peak")},
    "backward_macs": WHOLE,
    "optimizer_bytes": WHOLE,  # read and written by one update
    **dict.fromkeys(("gradient_error", "update_error"), REAL),  # the largest, relative, against float64
}


def cells(record: Record) -> dict[str, Any]:
    """The cells of one record that are no times."""
    names = ("backward_macs", "optimizer_bytes", "gradient_error", "update_error")
    memory = {begin: getattr(record, field) for begin, field in MEMORY.items()}
    return {
        **{name: getattr(record, name) for name in names},
        **{f"{begin}_{kind}_bytes": getattr(memory[begin], f"{kind}_bytes", None)
           for begin in MEMORY for kind in (*KINDS, "peak")},
    }  # fmt: skip


def part(name: str) -> Callable[[Launch], Samples | None]:
    """Reads the samples of a part from a launch."""
    return lambda launch: (launch.parts or {}).get(name)


def ratio(launch: Launch) -> Samples | None:
    """Backward over forward of each step of a launch, as samples; of their medians where these are not in pairs."""
    parts = launch.parts or {}
    if not {"forward", "backward"} <= set(parts):
        return None
    return Samples(tuple(map(truediv, parts["backward"].samples, parts["forward"].samples)), 1)


def times(frame: pd.DataFrame, records: Sequence[Record]) -> pd.DataFrame:
    """Times of parts and RATIO with their intervals, each moderated over the training steps of its run and device.

    frame: a row for each record, in their order. -> its index; no column where no record has parts.
    """
    known = {row: record for row, record in zip(frame.index, records, strict=True) if _has_parts(record)}
    columns = pd.DataFrame(index=frame.index)
    for name, unit, read in (*((name, "_ms", part(name)) for name in PARTS), (RATIO, "", ratio)):
        if known:
            rows = _estimates(known, read).join(frame[["run", "device"]])
            moderate(rows)
            ends = {f"{name}{end}{unit}": rows[source] for end, source in ENDS.items()}
            columns = columns.join(pd.DataFrame(ends))
    return columns


def _has_parts(record: Record) -> bool:
    return record.status == "ok" and any(launch.parts for launch in record.launches)


def _estimates(known: Mapping[int, Record], read: Callable[[Launch], Samples | None]) -> pd.DataFrame:
    estimates = [estimated(record, read) for record in known.values()]
    columns = {name: [each.get(name) for each in estimates] for name in ESTIMATE}
    return pd.DataFrame(
        {name: pd.Series(columns[name], dtype=dtype, index=list(known)) for name, dtype in ESTIMATE.items()}
    )
