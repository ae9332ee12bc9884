"""A record's launches -> the cells of its times: medians by round, latency with its interval, percentiles."""

import math
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from mixprof.data.case import is_gpu
from mixprof.data.launch import Launch, Samples, is_host_bound
from mixprof.data.record import Record
from mixprof.reports.statistics import over_launches, t_quantile
from mixprof.sampling import BATCHES, unseen, within_launch

PERCENTILE_99_SAMPLES = 1000


def times_of(record: Record) -> dict[str, Any]:
    """Latency and what follows from it, for a record that is ok; else only which time it would have been."""
    time = "gpu_ms" if is_gpu(record.case.device) else "host_ms"
    cells: dict[str, Any] = {"time": time, "launches": len(record.launches)}
    if record.status != "ok":
        return cells
    others = {"enqueue_ms": "enqueue_ms", "request_ms": "host_ms", "control_ms": "control_ms"}
    device = record.case.device
    cells |= {name: latency(samples_of(record, of), device).get("latency_ms") for name, of in others.items()}
    cells |= estimated(record, attrgetter(time)) | _host_percentiles(samples_of(record, "host_ms"))
    if "latency_ms" in cells:
        cells["images_per_s"] = 1000 * record.case.batch / cells["latency_ms"]
        cells |= _queued(record, cells)
    return cells


def estimated(record: Record, read: Callable[[Launch], Samples | None]) -> dict[str, Any]:
    """The estimate of one series of the launches that are ok, with its interval, rounds and medians."""
    timed = _timed(record, read)
    cells = latency([samples for _, samples in timed], record.case.device)
    return cells | _by_round(timed) if cells else {}


def _queued(record: Record, cells: Mapping[str, Any]) -> dict[str, Any]:
    """Of a GPU's case: whether the host sets its pace, whether gpu_ms is free of that, and launches of a forward."""
    if cells["time"] != "gpu_ms" or cells["enqueue_ms"] is None:
        return {}
    queued = [launch.queued for launch in record.launches if launch.queued is not None]
    gated = all(each.gated for each in queued) if queued else None
    return {
        "gated": gated,
        "host_bound": gated is False or is_host_bound(cells["enqueue_ms"], cells["latency_ms"]),
        "queued_launches": max((each.launches for each in queued if each.launches is not None), default=None),
    }


Timed = list[tuple[tuple[str, int], Samples]]  # the run or node, and the round there, of each launch


def _by_round(timed: Timed) -> dict[str, str]:
    """The rounds of a record's launches and their medians. Where rounds are not told apart, launches count as such."""
    timed = sorted(timed, key=lambda launch: launch[0])
    rounds = [f"{origin} {number}".strip() for (origin, number), _ in timed]
    distinct = rounds if len(set(rounds)) == len(rounds) else range(len(rounds))
    medians = [float(np.median(samples.samples)) for _, samples in timed]
    return {"rounds": ", ".join(map(str, distinct)), "medians_ms": ", ".join(map(repr, medians))}


def samples_of(record: Record, time: str) -> list[Samples]:
    """The samples of one of the three times in each launch that has them."""
    return [samples for _, samples in _timed(record, attrgetter(time))]


def _timed(record: Record, read: Callable[[Launch], Samples | None]) -> Timed:
    good = [launch for launch in record.launches if launch.status == "ok"]
    timed = [((each.environment.origin or "", each.round), read(each)) for each in good]
    return [(place, samples) for place, samples in timed if samples is not None and samples.samples]


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
    freedom = (BATCHES if one else len(medians)) - 1
    width = math.log(interval.high / interval.low) if interval.low > 0 else None  # within one launch it may be below 0
    return {
        "latency_ms": interval.estimate,
        "latency_low_ms": interval.low,
        "latency_high_ms": interval.high,
        "interval": "within-launch" if one else "launches",
        "launches": len(medians),
        "log_error": None if width is None else width / 2 / float(t_quantile(freedom, 0.975)),
        "log_freedom": freedom,
    }


def _host_percentiles(launches: Sequence[Samples]) -> dict[str, float]:
    """Percentiles of single requests, all launches together; none where a sample is the mean of several forwards."""
    if not launches or any(launch.forwards_per_sample != 1 for launch in launches):
        return {}
    pooled = np.concatenate([launch.samples for launch in launches])
    wanted = (50, 95, 99) if len(pooled) >= PERCENTILE_99_SAMPLES else (50, 95)
    return {f"host_p{percent}_ms": float(np.percentile(pooled, percent)) for percent in wanted}
