"""What a sweep would run: costs, predicted memory and a rough duration of each case. Runs nothing."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mixprof import lowerings
from mixprof.data.types import Case
from mixprof.plan.axes import Measure, Planned, Source
from mixprof.plan.sources import ANCHOR
from mixprof.symbolic.derive import Formulas, values_at
from mixprof.symbolic.formula import Point

# For a duration before anything was measured: orders of magnitude, and said to be so.
MACS_PER_S = {"cpu": 2e10, "cuda": 1e13}  # per core, per device
START_S = 1.0
COUNTED = 64  # experiments at most that a plan counts one by one
NO_MEMORY = f"memory is predicted in plans of at most {COUNTED} different experiments"


def predict(
    planned: list[Planned],
    measure: Measure,
    count: Callable[[Case, Source], dict[str, Any]],
    formulas: Callable[[Source], tuple[Formulas | None, str | None]],
    environment: dict[str, Any],
) -> dict[str, Any]:
    """The cases with MACs, parameters, minimal bytes, predicted memory, likely OOM and estimated seconds, and totals.

    A plan of few experiments counts each of them. A large one computes their costs from the models' formulas, which
    say nothing of memory, and counts where a model has none.
    """
    keys = [_experiment(entry.case) for entry in planned]
    is_large = len({key for key, entry in zip(keys, planned, strict=True) if entry.reason is None}) > COUNTED
    notes: dict[str, str] = {}  # of models without a formula
    by_formula = _by_formula(formulas, notes) if is_large else lambda entry: None
    found: dict[Case, dict[str, Any]] = {}
    missing = functools.cache(lowerings.missing)
    rows = []
    for key, entry in zip(keys, planned, strict=True):
        if entry.reason is None and key not in found:
            found[key] = by_formula(entry) or count(entry.case, entry.source)
        reason = entry.reason or missing(entry.case.lowering)
        rows.append(_row(entry, found.get(key, {}), reason, measure, environment))
    seconds = sum(row["estimated_s"] or 0.0 for row in rows)
    return {
        "cases": rows,
        "launches": len(rows) * measure.rounds,
        "estimated_s": round(seconds, 1),
        "notes": list(notes.values()),
    }


def _experiment(case: Case) -> Case:
    """What of a case its counts depend on: not how and where it is run."""
    return replace(case, lowering="eager", device="cpu", layout="contiguous", mode="hot")


def _by_formula(
    formulas: Callable[[Source], tuple[Formulas | None, str | None]], notes: dict[str, str]
) -> Callable[[Planned], dict[str, Any] | None]:
    """The costs of a case by its model's formulas, which are looked up once; None, and a note, where it has none."""
    known: dict[str, Formulas | None] = {}

    def look_up(name: str, source: Source) -> None:
        known[name], reason = (None, None) if source.artifact or source == ANCHOR else formulas(source)
        if reason is not None:
            notes[name] = f"{name}: {reason}; its cases were counted one by one"

    def costs(entry: Planned) -> dict[str, Any] | None:
        case = entry.case
        if case.model not in known:
            look_up(case.model, entry.source)
        found = known[case.model]
        if found is None:
            return None
        point = Point(case.batch, *case.resolution, case.window, case.channels)
        return {**values_at(found, point, case.dtype), "memory_reason": NO_MEMORY}

    return costs


def _row(
    entry: Planned,
    counts: dict[str, Any],
    reason: str | None,
    measure: Measure,
    environment: dict[str, Any],
) -> dict[str, Any]:
    peak = _peak_bytes(counts)
    memory = measure.max_memory or environment["informing"]["memory_bytes"]
    fits = None if peak is None or entry.case.device != "cpu" else peak <= memory
    return {
        "case": entry.case.to_json(),
        "runs": entry.reason is None,
        "reason": reason or counts.get("reason"),
        "params": counts.get("params"),
        "macs": counts.get("macs"),
        "min_bytes": counts.get("min_bytes"),
        "predicted_memory_bytes": peak,
        "predicted_memory_reason": counts.get("memory_reason"),
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
    return round(lowerings.entry_of(case.lowering).build_s + measure.rounds * (START_S + sampling), 1)


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
    reasons = dict.fromkeys(row["predicted_memory_reason"] for row in found["cases"])
    lines += [f"MiB ?: {reason}" for reason in reasons if reason is not None]
    lines += found["notes"]
    lines.append(f"{len(found['cases'])} cases, {found['launches']} launches, very roughly {total / 60:.0f} min")
    return "\n".join(lines)
