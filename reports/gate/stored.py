"""What is kept of a run to compare later ones with: exact metrics, and log ratios of times to the anchor's."""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mixprof.data.case import ANCHORS, Case
from mixprof.data.errors import UsageError
from mixprof.data.git import Commit
from mixprof.data.histories import File, History
from mixprof.data.json import decode, to_builtins
from mixprof.data.pairs import HOST, Timed
from mixprof.data.record import Record
from mixprof.data.run_folder import read_manifest
from mixprof.data.testbed import SOFTWARE, flatten, hardware, testbed_key
from mixprof.reports.frame import load, records_of
from mixprof.reports.gate.times import Time, of_rounds
from mixprof.reports.latencies import points
from mixprof.reports.statistics import FIRST_OVER_SECOND, contrast
from mixprof.reports.timed import samples_of

SCHEMA = 1
DATE = "%Y-%m-%dT%H:%M:%S%z"
EXACT = ("params", "macs", "predicted_peak_bytes", "graph_breaks", "recompiles", "kernels")  # more of them is worse
HOST_MODE = " host"  # behind the mode of a host's time in files that are older than its own field
COUNTED = ("params", "macs")  # of them, those that follow from the model alone
COMPARES = ("ok", "built")  # statuses that a comparison starts from
MACHINE_FAULTS = ("unstable", "throttled")  # statuses that blame the machine and not the code


@dataclass(frozen=True)
class Kept:
    """One time of a case of a run. What was not measured is None, or absent from `exact`."""

    timed: Timed
    status: str
    reason: str | None = None
    exact: Mapping[str, int] = field(default_factory=dict)
    log_ratio: float | None = None  # log(T / T_anchor_v1), the mean over launches
    spread: float | None = None  # its standard deviation from launch to launch
    launches: int = 0
    uncounted: tuple[str, ...] = ()  # operators that no count knows; not stored

    def to_json(self) -> dict[str, Any]:
        """Its fields, the case's time only where that is not the latency."""
        fields = {name: value for name, value in asdict(self).items() if name not in ("timed", "uncounted")}
        return {**fields, "case": self.timed.case.to_json(), **({"time": self.timed.time} if self.timed.time else {})}

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
    cases: Mapping[Timed, Kept]  # without the anchor's
    commit: Commit | None = None

    @property
    def key(self) -> str:
        return testbed_key(dict(self.testbed))

    @property
    def time(self) -> datetime:
        return datetime.strptime(self.created, DATE)

    def to_json(self) -> dict[str, Any]:
        cases = [kept.to_json() for kept in self.cases.values()]
        parts = {name: getattr(self, name) for name in ("created", "testbed", "versions", "informing")}
        commit = {"commit": to_builtins(self.commit)} if self.commit else {}  # a run without keeps its hash
        return {"schema": SCHEMA, **parts, **commit, "cases": cases}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Stored":
        """ValueError, KeyError or TypeError for what is none."""
        if fields["schema"] != SCHEMA:
            raise ValueError(f"schema {fields['schema']}, expected {SCHEMA}")
        kept = [_read(each) for each in fields["cases"]]
        parts = {name: fields[name] for name in ("created", "testbed", "versions", "informing")}
        datetime.strptime(parts["created"], DATE)
        commit = decode(fields["commit"], Commit) if fields.get("commit") else None
        if commit and not re.fullmatch("[0-9a-f]{7,64}", commit.hash):
            raise ValueError(f"commit '{commit.hash}'")
        return cls(**parts, cases={each.timed: each for each in kept}, commit=commit)


def _read(fields: Mapping[str, Any]) -> Kept:
    rest = {name: value for name, value in fields.items() if name not in ("case", "time")}
    return Kept(timed_of(Case.from_json(fields["case"]), fields.get("time", "")), **rest)


def timed_of(case: Case, time: str) -> Timed:
    """The key of a stored case. Older files have the host's time as a case of its own mode."""
    is_old = case.mode.endswith(HOST_MODE)
    return Timed(replace(case, mode=case.mode.removesuffix(HOST_MODE)), HOST if is_old else time)


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
    ratios = _log_ratios(load(run))
    kept = [_kept(*each) for each in zip(records, ratios, strict=True) if not each[0].case.is_anchor]
    anchors = {_setting(record.case): record for record in records if record.case.is_anchor}
    kept += [found for record in records if (found := _of_host(record, anchors.get(_setting(record.case))))]
    testbed = flatten(manifest.environment.testbed)
    software = {name: testbed[name] for name in SOFTWARE if name in testbed}
    informing = flatten(manifest.environment.informing)
    versions = {**manifest.versions, **software}
    return Stored(created, hardware(testbed), versions, informing, {each.timed: each for each in kept}, manifest.commit)


def of_file(history: History, file: File) -> Stored:
    """A run of a history. UsageError for what this mixprof did not write."""
    try:
        return Stored.from_json(history.read(file))
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"got '{file.path}', which another mixprof wrote ({error}), expected schema {SCHEMA}: "
            "begin a new history, or use the mixprof that wrote it"
        ) from None


def times_of_run(run: Path) -> dict[Case | None, dict[str, Time]]:
    """Read the times of every case of a run folder, as limits judge them."""
    rows = load(run)[["latency_ms", "latency_low_ms", "latency_high_ms"]].to_numpy()
    return {record.case: _times(record, *row) for record, row in zip(records_of(run), rows, strict=True)}


def _times(record: Record, *latency: float) -> dict[str, Time]:
    """Latency in the device's own time, with its interval over launches; percentiles in the host's."""
    ok = record if record.status == "ok" else replace(record, launches=())
    host = samples_of(ok, "host_ms")
    single = all(each.forwards_per_sample == 1 for each in host)
    times = of_rounds([each.samples for each in host], single, "cpu")
    ms, low, high = (_known(value) for value in latency)
    if len(ok.launches) < 2:
        low, high = None, None
    return {**times, "latency": Time(ms, low, high, "nothing was timed" if ms is None else None)}


def _kept(record: Record, ratio: tuple[float | None, float | None]) -> Kept:
    choices = (record.proof or {}).get("choices") or ()
    raced = any(choice["chosen"] != choice["usual"] for choice in choices)  # its peak is the race's, not the code's
    sources = {
        "params": record.params,
        "macs": record.macs,
        "predicted_peak_bytes": None if raced else getattr(record.memory, "predicted_peak_bytes", None),
        **{name: (record.proof or {}).get(name) for name in ("graph_breaks", "recompiles", "kernels")},
    }
    exact = {name: value for name, value in sources.items() if value is not None}
    value, error = ratio
    spread = None if error is None else error * math.sqrt(len(record.launches))
    uncounted = tuple(record.uncounted_ops or ())
    return Kept(Timed(record.case), record.status, record.reason, exact, value, spread, len(record.launches), uncounted)


def _setting(case: Case) -> tuple[str, str, str]:
    return case.lowering, case.device, case.dtype


def _of_host(record: Record, anchor: Record | None) -> Kept | None:
    """What is kept of a GPU case's time to enqueue, over its anchor's; None where either has none."""
    if anchor is None or record.case.is_anchor or record.status != "ok":
        return None
    both = [
        [math.log(float(np.median(each.samples))) for each in samples_of(side, "enqueue_ms")]
        for side in (record, anchor)
    ]
    if not all(both):
        return None
    value = float(np.mean(both[0]) - np.mean(both[1]))
    error = math.sqrt(sum(np.var(logs, ddof=1) / len(logs) for logs in both)) if min(map(len, both)) > 1 else None
    spread = None if error is None else error * math.sqrt(len(both[0]))
    return Kept(Timed(record.case, HOST), "ok", None, {}, value, spread, len(both[0]))


def _log_ratios(frame: pd.DataFrame) -> list[tuple[float | None, float | None]]:
    """Of each row the log of its time over its anchor's, and the standard error; None where they cannot be told."""
    keys = list(zip(frame["lowering"], frame["device"], frame["dtype"], strict=True))
    anchors = {key: row for row, key in enumerate(keys) if frame["model"].iloc[row] in ANCHORS}
    against = np.array([anchors.get(key, row) for row, key in enumerate(keys)], dtype=int)
    pairs = points(frame).at(np.stack([np.arange(len(frame)), against], axis=-1))
    ratios, (errors, _) = pairs.logs @ FIRST_OVER_SECOND, contrast(FIRST_OVER_SECOND, pairs)
    known = [key in anchors and bool(np.isfinite(value)) for key, value in zip(keys, ratios, strict=True)]
    values = np.where(known, ratios, np.nan), np.where(known, errors, np.nan)
    return [(_known(value), _known(error)) for value, error in zip(*values, strict=True)]


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
