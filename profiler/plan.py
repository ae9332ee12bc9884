"""What a sweep would run: counts, predicted memory and a rough duration of each case. Runs nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from profiler import lowerings
from profiler.sweep import Measure, Planned, Source
from profiler.types import Case, digest

# For a duration before anything was measured: orders of magnitude, and said to be so.
MACS_PER_S = {"cpu": 2e10, "cuda": 1e13}  # per core, per device
BUILD_S = {"eager": 0.0, "compile": 20.0, "onnxruntime": 5.0, "tensorrt": 30.0, "tensorrt_rtx": 5.0}
START_S = 1.0


def predict(
    planned: list[Planned],
    measure: Measure,
    count: Callable[[Case, Source], dict[str, Any]],
    environment: dict[str, Any],
) -> dict[str, Any]:
    """The cases with MACs, parameters, predicted memory, likely OOM and estimated seconds, and their totals."""
    counted: dict[str, dict[str, Any]] = {}
    rows = []
    for entry in planned:
        key = digest({**entry.case.to_json(), "lowering": None, "device": None, "layout": None, "mode": None})
        if entry.reason is None and key not in counted:
            counted[key] = count(entry.case, entry.source)
        rows.append(_row(entry, counted.get(key, {}), measure, environment))
    seconds = sum(row["estimated_s"] or 0.0 for row in rows)
    return {"cases": rows, "launches": len(rows) * measure.rounds, "estimated_s": round(seconds, 1)}


def _row(entry: Planned, counts: dict[str, Any], measure: Measure, environment: dict[str, Any]) -> dict[str, Any]:
    peak = _peak_bytes(counts)
    reason = entry.reason or lowerings.missing(entry.case.lowering) or counts.get("reason")
    memory = measure.max_memory or environment["informing"]["memory_bytes"]
    fits = None if peak is None or entry.case.device != "cpu" else peak <= memory
    return {
        "case": entry.case.to_json(),
        "runs": entry.reason is None,
        "reason": reason,
        "params": counts.get("params"),
        "macs": counts.get("macs"),
        "predicted_memory_bytes": peak,
        "likely_oom": None if fits is None else not fits,
        "estimated_s": None if entry.reason else _seconds(entry.case, counts, measure, environment),
    }


def _peak_bytes(counts: dict[str, Any]) -> int | None:
    """Weights, input and the eager forward's largest set of live activations."""
    parts = [counts.get(name) for name in ("weights_bytes", "input_bytes", "predicted_peak_bytes")]
    return None if None in parts else sum(part for part in parts if part is not None)


def _seconds(case: Case, counts: dict[str, Any], measure: Measure, environment: dict[str, Any]) -> float | None:
    macs = counts.get("macs")
    if macs is None:
        return None
    kind = case.device.split(":")[0]
    rate = MACS_PER_S[kind] * (environment["testbed"]["threads"] if kind == "cpu" else 1)
    sampling = max(0.1 if measure.quick else 1.0, (16 if measure.quick else 40) * macs / rate)
    return round(BUILD_S[case.lowering.split(":")[0]] + measure.rounds * (START_S + sampling), 1)


def as_text(found: dict[str, Any]) -> str:
    """The plan for a person."""
    lines = [f"{'case':64} {'GMACs':>9} {'MiB':>9} {'s':>7}"]
    for row in found["cases"]:
        label = Case.from_json(row["case"]).label()
        if not row["runs"]:
            lines.append(f"{label:64} unsupported: {row['reason']}")
            continue
        macs = "?" if row["macs"] is None else f"{row['macs'] / 1e9:.3f}"
        peak = row["predicted_memory_bytes"]
        mebibytes = "?" if peak is None else f"{peak / 2**20:.1f}"
        note = "  likely out of memory" if row["likely_oom"] else ""
        note += f"  {row['reason']}" if row["reason"] else ""
        lines.append(f"{label:64} {macs:>9} {mebibytes:>9} {row['estimated_s'] or 0:>7.1f}{note}")
    total = found["estimated_s"]
    lines.append(f"{len(found['cases'])} cases, {found['launches']} launches, very roughly {total / 60:.0f} min")
    return "\n".join(lines)
