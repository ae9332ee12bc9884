"""Latency that a roofline predicts, operator by operator. Always a prediction: nothing of it was measured there.

An operator takes the longer of its arithmetic and its memory traffic, each at the device's peak times an efficiency,
and every kernel a fixed overhead. (Williams, Waterman, Patterson 2009, applied to each operator and summed.)
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixprof.data import toml
from mixprof.data.case import Case
from mixprof.data.errors import UsageError
from mixprof.data.json import digest
from mixprof.data.manifest import Peaks
from mixprof.data.parsing import nearest
from mixprof.plan.axes import Planned, Source

TABLE = Path(__file__).with_name("hardware.toml")
KERNEL_S = 3e-6  # assumed of each kernel on a GPU, work queued ahead: start, ramp and tail
Operator = Mapping[str, Any]  # as metrics.operators.Operator.to_json() has it


@dataclass(frozen=True)
class Hardware:
    """The peaks of a device in one dtype."""

    name: str
    matrix_flops_per_s: float
    vector_flops_per_s: float
    bytes_per_s: float
    kernel_s: float
    cached_bytes_per_s: float = 0.0  # of what fits the cache; 0: the cache is not modelled
    cache_bytes: int = 0


@dataclass(frozen=True)
class Efficiency:
    """The share of each peak that kernels reach, and how many times the overhead of a kernel a product takes."""

    matrix: float = 1.0
    vector: float = 1.0
    memory: float = 1.0
    product: float = 1.0  # a library's, which prepares each call; pointwise kernels take it once


@dataclass(frozen=True)
class Prediction:
    """The latency of a case on a device that is not here, or why there is none."""

    latency_ms: float | None
    reason: str | None
    images_per_s: float | None = None
    memory_bound_share: float | None = None  # of the latency
    kernels: int | None = None


def on(name: str, dtype: str) -> Hardware:
    """A data sheet's device. UsageError for an unknown one and for a dtype that it does not have."""
    table: dict[str, Any] = toml.decode(TABLE.read_text())
    if name not in table:
        raise UsageError(f"--on: got '{name}', expected {nearest(name, table)}; profiler/plan/hardware.toml lists all")
    row = table[name]
    if dtype not in row["matrix"]:
        known = ", ".join(row["matrix"])
        raise UsageError(f"--on {name}: got dtype {dtype}, expected one of {known}: choose with --dtypes")
    return Hardware(row["name"], row["matrix"][dtype], row["vector"][dtype], row["bytes_per_s"], KERNEL_S)


def here(peaks: Peaks) -> Hardware:
    """This machine's own device, from its measured peaks."""
    rates = (peaks.matrix_flops_per_s, peaks.vector_flops_per_s, peaks.copy_bytes_per_s)
    cached = (peaks.cached_copy_bytes_per_s or 0.0, peaks.cache_bytes or 0)
    return Hardware(f"{peaks.device} here", *rates, peaks.device_overhead_s or peaks.overhead_s or 0.0, *cached)


def operator_s(
    operator: Operator, hardware: Hardware, efficiency: Efficiency = Efficiency(), *, resident: bool = True
) -> float:
    """Seconds of one operator: max(arithmetic, memory) + overhead. resident: its weights are still in the cache."""
    far = 0 if resident else operator["weight_bytes"]
    near = operator["read_bytes"] + operator["written_bytes"] - far
    near_per_s = hardware.cached_bytes_per_s if near <= hardware.cache_bytes else 0.0
    memory_s = near / (near_per_s or hardware.bytes_per_s) + far / hardware.bytes_per_s
    arithmetic_s = _arithmetic_s(operator, hardware, efficiency)
    pointwise = not operator["flops"] or operator["name"] == "aten.addcmul"
    overhead_s = hardware.kernel_s * (1.0 if pointwise else efficiency.product)
    return max(arithmetic_s, memory_s / efficiency.memory) + overhead_s


def _arithmetic_s(operator: Operator, hardware: Hardware, efficiency: Efficiency) -> float:
    if operator["kind"] == "matrix":
        return operator["flops"] / (hardware.matrix_flops_per_s * efficiency.matrix)
    return operator["flops"] / (hardware.vector_flops_per_s * efficiency.vector)


def latency_s(operators: Sequence[Operator], hardware: Hardware, efficiency: Efficiency = Efficiency()) -> float:
    """Seconds of a forward: its operators one after the other. Weights stay in the cache if all of them fit it."""
    resident = sum(each["weight_bytes"] for each in operators) <= hardware.cache_bytes
    return sum(operator_s(each, hardware, efficiency, resident=resident) for each in operators)


def of_cases(
    planned: list[Planned], name: str, operators: Callable[[Case, Source], Mapping[str, Any]]
) -> tuple[str, list[Prediction]]:
    """The full name of a device, and what is predicted for each case there.

    operators: those of a case, as a worker finds them. Raises UsageError for a device or dtype that is not known.
    """
    hardware = {dtype: on(name, dtype) for dtype in {entry.case.dtype for entry in planned if entry.reason is None}}
    known: dict[str, Prediction] = {}
    keys = [digest({**entry.case.to_json(), "mode": None}) for entry in planned]
    for key, entry in zip(keys, planned, strict=True):
        if entry.reason is None and key not in known:
            known[key] = _predicted(entry, hardware[entry.case.dtype], operators)
    predictions = [known.get(key, Prediction(None, entry.reason)) for key, entry in zip(keys, planned, strict=True)]
    return next(iter(hardware.values())).name, predictions


def _predicted(
    entry: Planned, hardware: Hardware, operators: Callable[[Case, Source], Mapping[str, Any]]
) -> Prediction:
    if entry.case.lowering != "eager":
        return Prediction(None, "only eager operators are predicted: what a lowering fuses is not known")
    if entry.source.artifact is not None:
        return Prediction(None, "operators of a file are not predicted")
    listed = operators(entry.case, entry.source)
    if listed["status"] != "ok":
        return Prediction(None, listed["reason"])
    every: list[Operator] = listed["operators"]
    moved_s = [(one["read_bytes"] + one["written_bytes"]) / hardware.bytes_per_s for one in every]
    arithmetic_s = [_arithmetic_s(one, hardware, Efficiency()) for one in every]
    by_memory = [one for one, moved, counted in zip(every, moved_s, arithmetic_s, strict=True) if moved > counted]
    seconds, memory_s = latency_s(every, hardware), latency_s(by_memory, hardware)
    return Prediction(1000 * seconds, None, entry.case.batch / seconds, memory_s / seconds, len(every))


def as_text(device: str, predictions: Mapping[Case, Prediction]) -> str:
    """A table of predictions for a person."""
    lines = [
        f"Predicted for {device} from its data sheet, not measured: roofline of each eager operator, "
        f"{1e6 * KERNEL_S:g} µs a kernel.",
        f"{'case':64} {'ms':>9} {'images/s':>9} {'memory':>7} {'kernels':>7}",
    ]
    for case, one in predictions.items():
        if one.latency_ms is None:
            lines.append(f"{case.label():64} none: {one.reason}")
        else:
            share = f"{one.memory_bound_share:.0%}"
            lines.append(
                f"{case.label():64} {one.latency_ms:>9.3f} {one.images_per_s:>9.0f} {share:>7} {one.kernels:>7}"
            )
    return "\n".join(lines)
