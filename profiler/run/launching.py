"""One launch of a case on a server: counts and reference first, where no earlier case needed the same."""

import json
import re
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from mixprof import lowerings
from mixprof.data.case import QUANTIZED, STEP, Case
from mixprof.data.choices import Choices
from mixprof.data.files import write_whole
from mixprof.data.json import Json, decode, to_builtins
from mixprof.data.launch import Counts, Launch
from mixprof.data.messages import Counted
from mixprof.machine import cpu_contention
from mixprof.machine.testbed import total_memory_bytes
from mixprof.plan.axes import Planned
from mixprof.plan.settings import Measure
from mixprof.run.client import Server, source_request


@dataclass(frozen=True)
class Bench:
    """A server, and how it is asked to measure."""

    server: Server
    measure: Measure
    traces: Path | None = None  # where a trace of each case is kept
    profile: bool = False  # times of layers, in the place of the forward's
    round: int = 0

    @property
    def settings(self) -> Json:
        """How a worker is told to measure."""
        settings = {**asdict(self.measure), "threads": self.server.threads}
        return {**settings, "profile": True} if self.profile else settings


def request_of(entry: Planned) -> Json:
    """A case as a worker is told of it."""
    return {
        "source": source_request(entry.source),
        "case": entry.case.to_json(),
        "layout_is_default": entry.layout_is_default,
    }


def reference_of(server: Server, case: Case) -> Path:
    """The file that holds weights, inputs and the right output of a case, made or yet to be made."""
    folder = server.scratch / "references"
    folder.mkdir(parents=True, exist_ok=True)
    (server.scratch / "cache").mkdir(exist_ok=True)
    return folder / f"{case.reference_key}.pt"


def choices_of(server: Server, entry: Planned, settings: Json) -> Json | None:
    """The formulations that every launch of a case runs, found once on its server's machine; None: the usual ones.

    Where they cannot be found, the usual ones, and the reason is kept with them.
    """
    case = entry.case
    chooses = lowerings.entry_of(case.lowering).chooses and entry.source.specialize is not None
    if (
        case.step != STEP or not chooses or settings["formulations"] != "measured" or case.dtype in QUANTIZED
    ):  # whose file all engines share
        return None
    reference = reference_of(server, case)
    path = reference.with_name(f"{case.key}.choices.json")
    if not path.exists():
        request = {**request_of(entry), "reference": str(reference), "measure": settings}
        values = server.run("choose", settings["timeout"], **request).values
        if values["status"] != "ok":
            values = {"reason": f"{values['status']}: {values['reason']}"}
        kept = {declared.name: values[declared.name] for declared in fields(Choices) if declared.name in values}
        write_whole(path, json.dumps(kept).encode())
    chosen: Json = json.loads(path.read_bytes())
    return chosen


def steady_launch(entry: Planned, bench: Bench) -> Launch:
    """A launch that had its CPU to itself: repeated while it had not, flagged when that does not help."""
    launch, most = Launch("unstable"), bench.measure.max_lost_cpu
    for attempt in range(1, cpu_contention.TRIES + 1):
        launch = launch_case(entry, bench)
        launch = replace(launch, environment=replace(launch.environment, tries=attempt))
        lost = launch.environment.lost_cpu_share
        if launch.status not in ("ok", "unstable") or entry.case.device != "cpu" or (lost or 0.0) <= most:
            return launch
    return replace(
        launch,
        status="unstable",
        reason=f"lost {lost:.0%} of its CPU time to others in the last of {cpu_contention.TRIES} tries, "
        f"expected at most {most:.0%}: end what else runs here, or allow more with --max-lost-cpu",
    )


def trace_name(case: Case) -> str:
    """A case in words that a file may have for a name, and its key, which no two cases share."""
    return f"{re.sub(r'[^A-Za-z0-9_.=-]+', '-', case.label())[:100]}-{case.key}"


def launch_case(entry: Planned, bench: Bench) -> Launch:
    """One launch of a case in a process of its own."""
    server, timeout_s, bound = bench.server, bench.measure.timeout, bench.measure.max_memory
    request, reference = request_of(entry), reference_of(server, entry.case)
    first = {**request, "max_memory": bound and 2 * bound}  # the reference is computed in twice the width
    start = time.perf_counter()
    counted = _count(server, reference.with_suffix(f".{entry.case.device.split(':')[0]}.json"), first, timeout_s)
    counts = _kept(counted)
    if reason := _too_large(entry.case, counted, bound):
        return Launch("oom", reason, counts=counts)
    if not reference.exists():
        prepared = server.run("prepare", timeout_s, reference=str(reference), **first).values
        if prepared["status"] != "ok":
            return Launch(prepared["status"], prepared["reason"], counts=counts)
    prepare_s = time.perf_counter() - start
    choices = choices_of(server, entry, bench.settings)
    more: Json = {"reference": str(reference), "measure": bench.settings, "max_memory": bound, "choices": choices}
    if bench.traces is not None and bench.measure.trace:
        more["trace"] = str(bench.traces / f"{trace_name(entry.case)}.json.gz")
    outcome = server.run("launch", timeout_s, noise=str(bench.round), **request, **more)
    job_s = outcome.values.pop("job_s", None)
    launch = Launch.from_json(outcome.values)
    environment = replace(
        launch.environment,
        prepare_s=prepare_s,
        wall_s=outcome.wall_s,
        start_s=None if job_s is None else outcome.wall_s - job_s,
    )
    predicted = (choices or {}).get("predicted_peak_bytes") or counted.predicted_peak_bytes
    memory = launch.memory and replace(launch.memory, predicted_peak_bytes=predicted)
    launch = replace(launch, predicted_step_memory=counted.step_memory if launch.step_memory else None)
    return replace(launch, counts=counts, memory=memory, environment=environment)


def _count(server: Server, path: Path, request: Json, timeout_s: float) -> Counted:
    """A model's counts at an input, asked once; their failure costs the case nothing else."""
    if path.exists():
        return decode(json.loads(path.read_bytes()), Counted)
    counted = decode(server.run("count", timeout_s, **request).values, Counted)
    if counted.status == "ok":
        write_whole(path, json.dumps(to_builtins(counted)).encode())
    return counted


def _kept(counted: Counted) -> Counts | None:
    """The counts of a launch; None where counting failed."""
    names = [declared.name for declared in fields(Counts)]
    return Counts(**{name: getattr(counted, name) for name in names}) if counted.status == "ok" else None


def _too_large(case: Case, counted: Counted, bound: int | None) -> str | None:
    """Why a case will not fit, from its predicted peak; None when it will or nobody can tell."""
    if counted.status != "ok" or case.device != "cpu":
        return None
    # Of a file, only weights and inputs are known ahead.
    predicted = sum(part or 0 for part in (counted.weights_bytes, counted.input_bytes, counted.predicted_peak_bytes))
    most = bound or total_memory_bytes()
    if predicted <= most:
        return None
    limit = "--max-memory" if bound else "this machine's memory"
    return f"not started: predicted to need {predicted:,} bytes, more than {limit}, {most:,} bytes"
