"""Records -> one DataFrame: a row per case, with its statistics and their intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from profiler.sampling import BATCHES, over_launches, unseen, within_launch
from profiler.store import read_manifest, read_records
from profiler.types import Record, Samples, UsageError

ANCHOR = "anchor_v1"
ANCHOR_KEYS = ["run", "lowering", "device", "dtype"]
TEXT, WHOLE, REAL, TRUTH = "object", "Int64", "float64", "boolean"
PERCENTILE_99_SAMPLES = 1000

COLUMNS = {
    "run": TEXT,  # the folder's name
    "kind": TEXT,  # "mixer" or "network"
    "model": TEXT,
    "lowering": TEXT,
    "device": TEXT,
    "dtype": TEXT,
    "layout": TEXT,
    "mode": TEXT,
    "batch": WHOLE,
    "resolution": TEXT,  # "56", "800x1333"
    "height": WHOLE,
    "width": WHOLE,
    "window": WHOLE,
    "channels": WHOLE,
    "status": TEXT,
    "reason": TEXT,
    "time": TEXT,  # which of the three times latency_ms is: "gpu_ms" or "host_ms"
    "latency_ms": REAL,
    "latency_low_ms": REAL,
    "latency_high_ms": REAL,
    "interval": TEXT,  # "launches", "within-launch" or missing
    "launches": WHOLE,
    "host_p50_ms": REAL,
    "host_p95_ms": REAL,
    "host_p99_ms": REAL,
    "enqueue_ms": REAL,
    "images_per_s": REAL,
    "anchor_ratio": REAL,
    "macs": WHOLE,
    "flops": WHOLE,
    "params": WHOLE,
    "counts_exact": TRUTH,
    "uncounted_ops": TEXT,  # comma-separated; empty when everything was counted
    "allocator_peak_bytes": WHOLE,
    "predicted_peak_bytes": WHOLE,  # of the allocator, in eager mode
    "process_peak_bytes": WHOLE,
    "weights_bytes": WHOLE,
    "relative_error": REAL,
    "build_s": REAL,
    "build_cached": TRUTH,
    "artifact_bytes": WHOLE,
    "graph_breaks": WHOLE,
    "recompiles": WHOLE,
}


def load(*runs: str | Path) -> pd.DataFrame:
    """One row per record of these run folders, columns as in COLUMNS. What was not measured is missing, never 0.

    Raises UsageError for a folder that is no run, a run that is given twice, and a case with two records.
    """
    rows = [row(name, record) for name, run in run_names(runs).items() for record in _records(run)]
    columns = {name: pd.Series([r.get(name) for r in rows], dtype=dtype) for name, dtype in COLUMNS.items()}
    frame = pd.DataFrame(columns)
    frame["anchor_ratio"] = frame["latency_ms"] / _anchor_ms(frame)
    return frame


def run_names(runs: Iterable[str | Path]) -> dict[str, Path]:
    """A name for each run: its folder's, or its whole path where two folders share a name."""
    paths = [Path(run).resolve() for run in runs]
    names = [path.name for path in paths]
    named = {name if names.count(name) == 1 else str(path): path for name, path in zip(names, paths, strict=True)}
    if len(named) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise UsageError(f"got '{twice}' twice, expected different runs: name each once")
    return named


def _records(run: Path) -> list[Record]:
    """A run's records. UsageError for a folder that is no run, and for two records of one case."""
    read_manifest(run)
    records = read_records(run)
    for case, count in Counter(record.case for record in records).items():
        if count > 1:
            raise UsageError(f"got {count} records of {case.label()} in '{run}', expected one: keep the one you trust")
    return records


def row(run: str, record: Record) -> dict[str, Any]:
    """The cells of one record. A name that is absent is a missing value."""
    case = record.case
    height, width = case.resolution
    return {
        **case.to_json(),
        "run": run,
        "kind": "network" if case.channels is None else "mixer",
        "resolution": f"{height}" if height == width else f"{height}x{width}",
        "height": height,
        "width": width,
        "status": record.status,
        "reason": record.reason,
        **_measured(record),
        **_counted(record),
        **{
            name: (record.memory or {}).get(name) for name in COLUMNS if name.endswith(("_peak_bytes", "weights_bytes"))
        },
        "relative_error": record.relative_error,
        "build_s": record.build_s,
        "build_cached": record.build_cached,
        "artifact_bytes": record.artifact_bytes,
        **{name: (record.proof or {}).get(name) for name in ("graph_breaks", "recompiles")},
    }


def _counted(record: Record) -> dict[str, Any]:
    cells: dict[str, Any] = {"macs": record.macs, "flops": record.flops, "params": record.params}
    if record.uncounted_ops is None:
        return cells
    return {**cells, "counts_exact": not record.uncounted_ops, "uncounted_ops": ", ".join(record.uncounted_ops)}


def _measured(record: Record) -> dict[str, Any]:
    """Latency and what follows from it, for a record that is ok; else only which time it would have been."""
    time = "gpu_ms" if record.case.device.startswith("cuda") else "host_ms"
    cells: dict[str, Any] = {"time": time, "launches": len(record.launches)}
    if record.status != "ok":
        return cells
    cells |= {"enqueue_ms": latency(_samples(record, "enqueue_ms"), record.case.device).get("latency_ms")}
    cells |= latency(_samples(record, time), record.case.device) | _host_percentiles(_samples(record, "host_ms"))
    if "latency_ms" in cells:
        cells["images_per_s"] = 1000 * record.case.batch / cells["latency_ms"]
    return cells


def _samples(record: Record, time: str) -> list[Samples]:
    """The samples of one of the three times in each launch that has them."""
    found = [getattr(launch, time) for launch in record.launches if launch.status == "ok"]
    return [samples for samples in found if samples is not None and samples.samples]


def latency(launches: Sequence[Samples], device: str) -> dict[str, Any]:
    """The estimate with its 95 % interval: over launches where there are two, else within the one.

    One launch cannot see the machine's slow drift, so its interval is widened by what is assumed of the device.
    """
    if not launches:
        return {}
    medians = [float(np.median(launch.samples)) for launch in launches]
    if len(medians) == 1 and len(launches[0].samples) < BATCHES:
        return {"latency_ms": medians[0], "launches": 1}
    one = len(medians) == 1
    interval = within_launch(launches[0].samples, unseen(device)) if one else over_launches(medians)
    return {
        "latency_ms": interval.estimate,
        "latency_low_ms": interval.low,
        "latency_high_ms": interval.high,
        "interval": "within-launch" if one else "launches",
        "launches": len(medians),
    }


def _host_percentiles(launches: Sequence[Samples]) -> dict[str, float]:
    """Percentiles of single requests, all launches together; none where a sample is the mean of several forwards."""
    if not launches or any(launch.forwards_per_sample != 1 for launch in launches):
        return {}
    pooled = np.concatenate([launch.samples for launch in launches])
    wanted = (50, 95, 99) if len(pooled) >= PERCENTILE_99_SAMPLES else (50, 95)
    return {f"host_p{percent}_ms": float(np.percentile(pooled, percent)) for percent in wanted}


def _anchor_ms(frame: pd.DataFrame) -> pd.Series:
    """For each row the latency of the anchor with the same run, lowering, device and dtype; missing where none."""
    anchors = frame[(frame["model"] == ANCHOR) & frame["latency_ms"].notna()].drop_duplicates(ANCHOR_KEYS, keep=False)
    found = frame[ANCHOR_KEYS].merge(anchors[[*ANCHOR_KEYS, "latency_ms"]], on=ANCHOR_KEYS, how="left")
    return found["latency_ms"].set_axis(frame.index)
