"""What is kept of a run to compare later ones with: exact metrics, and log ratios of times to the anchor's."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from mixprof.data.errors import UsageError
from mixprof.data.run_folder import read_manifest
from mixprof.data.testbed import SOFTWARE, flatten, hardware, testbed_key
from mixprof.data.types import Case, Record
from mixprof.reports.frame import ANCHOR, latency, records_of, samples_of
from mixprof.reports.gate.times import Time, of_rounds

SCHEMA = 1
DATE = "%Y-%m-%dT%H:%M:%S%z"
EXACT = ("params", "macs", "predicted_peak_bytes", "graph_breaks", "recompiles", "kernels")  # more of them is worse
MACHINE_FAULTS = ("unstable", "throttled")  # statuses that blame the machine and not the code
SUM_OF_95 = 2 * 1.96  # an interval's width in standard errors


@dataclass(frozen=True)
class Kept:
    """One case of a run. What was not measured is None, or absent from `exact`."""

    case: Case
    status: str
    reason: str | None = None
    exact: Mapping[str, int] = field(default_factory=dict)
    log_ratio: float | None = None  # log(T / T_anchor_v1), the mean over launches
    spread: float | None = None  # its standard deviation from launch to launch
    launches: int = 0

    @property
    def error(self) -> float:
        """Standard error of the ratio; 0 where it cannot be told."""
        return (self.spread or 0.0) / math.sqrt(max(self.launches, 1))


@dataclass(frozen=True)
class Stored:
    """A run. Its environment is flat: {"gpu_settings[0].ecc": True}."""

    created: str  # as DATE
    testbed: Mapping[str, Any]  # the machine and how it is set
    versions: Mapping[str, Any]  # of software, that of the testbed included
    informing: Mapping[str, Any]  # what may explain a difference and forbids no comparison
    cases: Mapping[Case, Kept]  # without the anchor's

    @property
    def key(self) -> str:
        return testbed_key(dict(self.testbed))

    @property
    def time(self) -> datetime:
        return datetime.strptime(self.created, DATE)

    def to_json(self) -> dict[str, Any]:
        cases = [{**asdict(kept), "case": kept.case.to_json()} for kept in self.cases.values()]
        parts = {name: getattr(self, name) for name in ("created", "testbed", "versions", "informing")}
        return {"schema": SCHEMA, **parts, "cases": cases}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Stored:
        """ValueError, KeyError or TypeError for what is none."""
        if fields["schema"] != SCHEMA:
            raise ValueError(f"schema {fields['schema']}, expected {SCHEMA}")
        kept = [Kept(**{**each, "case": Case.from_json(each["case"])}) for each in fields["cases"]]
        parts = {name: fields[name] for name in ("created", "testbed", "versions", "informing")}
        datetime.strptime(parts["created"], DATE)
        return cls(**parts, cases={each.case: each for each in kept})


def of_run(run: Path) -> Stored:
    """What is kept of a run folder. UsageError for a folder that is none, that has no record, or no date."""
    manifest = read_manifest(run)
    records = records_of(run)
    created = str(manifest.created)
    try:
        datetime.strptime(created, DATE)
    except ValueError:
        raise UsageError(f"got '{run}' with date '{created}', expected one like 2026-01-31T12:00:00+0000") from None
    if not records:
        raise UsageError(f"got '{run}', which has no record, expected a finished run: go on with it by --resume")
    anchors = {_anchor_of(record.case): record for record in records if record.case.model == ANCHOR}
    kept = [_kept(record, anchors.get(_anchor_of(record.case))) for record in records if record.case.model != ANCHOR]
    testbed = flatten(manifest.environment.testbed)
    software = {name: testbed[name] for name in SOFTWARE if name in testbed}
    informing = flatten(manifest.environment.informing)
    versions = {**manifest.versions, **software}
    return Stored(created, hardware(testbed), versions, informing, {each.case: each for each in kept})


def times_of_run(run: Path) -> dict[Case, dict[str, Time]]:
    """Read the times of every case of a run folder, as limits judge them."""
    return {record.case: _times(record) for record in records_of(run)}


def _times(record: Record) -> dict[str, Time]:
    """Latency in the device's own time, percentiles in the host's."""
    own = "gpu_ms" if record.case.device.startswith("cuda") else "host_ms"
    ok = record if record.status == "ok" else replace(record, launches=())
    device, host = samples_of(ok, own), samples_of(ok, "host_ms")
    single = all(each.forwards_per_sample == 1 for each in host)
    return {
        **of_rounds([each.samples for each in host], single, "cpu"),
        "latency": of_rounds([each.samples for each in device], single, "cpu")["latency"],
    }


def _anchor_of(case: Case) -> tuple[str, str, str]:
    return case.lowering, case.device, case.dtype


def _kept(record: Record, anchor: Record | None) -> Kept:
    sources = {
        "params": record.params,
        "macs": record.macs,
        "predicted_peak_bytes": getattr(record.memory, "predicted_peak_bytes", None),
        **{name: (record.proof or {}).get(name) for name in ("graph_breaks", "recompiles", "kernels")},
    }
    exact = {name: value for name, value in sources.items() if value is not None}
    ratio, spread = _log_ratio(record, anchor)
    return Kept(record.case, record.status, record.reason, exact, ratio, spread, len(record.launches))


def _log_ratio(record: Record, anchor: Record | None) -> tuple[float | None, float | None]:
    """The log of a case's time over its anchor's, and its spread: over launches, which pair by their round.

    Of a single launch the spread is what the intervals within both say.
    """
    if anchor is None or record.status != "ok" or anchor.status != "ok":
        return None, None
    time = "gpu_ms" if record.case.device.startswith("cuda") else "host_ms"
    launches = [samples_of(each, time) for each in (record, anchor)]
    if not all(launches):
        return None, None
    medians = [[math.log(statistics.median(each.samples)) for each in side] for side in launches]
    if len(medians[0]) == len(medians[1]) > 1:
        differences = [case - anchor for case, anchor in zip(*medians, strict=True)]
        return statistics.fmean(differences), statistics.stdev(differences)
    errors = [_error(latency(side, record.case.device)) for side in launches]
    ratio = statistics.fmean(medians[0]) - statistics.fmean(medians[1])
    known = [each for each in errors if each is not None]
    spread = math.hypot(*known) * math.sqrt(len(medians[0])) if len(known) == 2 else None
    return ratio, spread


def _error(found: Mapping[str, Any]) -> float | None:
    """Standard error in log units from a 95 % interval."""
    low, high = found.get("latency_low_ms"), found.get("latency_high_ms")
    return math.log(high / low) / SUM_OF_95 if low is not None and high is not None and low > 0 else None
