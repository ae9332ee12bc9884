"""Time a run's engines again, in turns with trtexec: one engine, the same conditions. Never run on a GPU yet."""

import dataclasses
import functools
import re
import shlex
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mixprof import lowerings
from mixprof.data import cache, run_folder
from mixprof.data.errors import Unsupported, UsageError
from mixprof.data.launch import Launch
from mixprof.data.manifest import Checked, CrossCheck, Manifest
from mixprof.data.messages import Machine
from mixprof.data.record import Record
from mixprof.lowerings.tensorrt import trtexec
from mixprof.machine.process import default_threads
from mixprof.plan.axes import Planned
from mixprof.plan.settings import Measure
from mixprof.plan.sources import Registry
from mixprof.run import launching
from mixprof.run.agreement import OURS, TOLERANCE, checked, in_words, schedule, unchecked
from mixprof.run.client import Server, ServerDied
from mixprof.run.executors import local
from mixprof.run.session import Session, session


class Unchecked(Exception):
    """A figure cannot be checked; the message says why."""


def programs(given: Sequence[str]) -> dict[str, str]:
    """flavour -> program: those named with --with, else what PATH holds under the usual names.

    A name with "rtx" in it is TensorRT-RTX's. UsageError for one that does not exist.
    """
    if not given:
        return {flavour: path for flavour, name in trtexec.NAMES.items() if (path := shutil.which(name))}
    named: dict[str, str] = {}
    for name in given:
        flavour = "tensorrt_rtx" if "rtx" in Path(name).name.lower() else "tensorrt"
        path = shutil.which(name)
        if path is None:
            raise UsageError(
                f"got --with '{name}', which is no program that can be run here, expected {trtexec.NAMES[flavour]} or "
                f"its path: {trtexec.INSTALL[flavour]}"
            )
        if flavour in named:
            raise UsageError(f"got --with '{named[flavour]}' and '{name}', expected one program for {flavour}")
        named[flavour] = path
    return named


def check(
    run: Path, tools: Mapping[str, str], registry: Registry, *, blocks: int, seed: int, say: Callable[[str], None]
) -> CrossCheck:
    """What crosscheck.json holds: a mark, its reason and the times of each TensorRT record of a run."""
    manifest = run_folder.read_manifest(run)
    records = [each for each in run_folder.read_records(run) if lowerings.parse(each.case.lowering)[0].engine]
    if not records:
        raise UsageError(
            f"got '{run}', which has no record of tensorrt or tensorrt_rtx, expected one: "
            "`mixprof sweep --lowerings tensorrt --devices cuda:0`"
        )
    reasons = [why_not(record, tools) for record in records]
    cases = [unchecked(record, reason) for record, reason in zip(records, reasons, strict=True) if reason]
    waiting = [record for record, reason in zip(records, reasons, strict=True) if not reason]
    if waiting:
        measure = measure_of(manifest)
        with session(measure, registry) as asked:
            here = asked.machine()
            for number, record in enumerate(waiting, 1):
                reason = elsewhere(record, manifest.environment.testbed, here)
                order = schedule(blocks, seed + number)
                entry = unchecked(record, reason) if reason else _timed(record, asked, tools, measure, order)
                cases.append(entry)
                say(f"[{number}/{len(waiting)}] {record.case.label()}  {in_words(entry)}")
    return CrossCheck(tuple(cases), time.strftime("%Y-%m-%dT%H:%M:%S%z"), TOLERANCE, blocks, seed, dict(tools))


def why_not(record: Record, tools: Mapping[str, str]) -> str | None:
    """Why a record's figure cannot be checked, as far as the run folder and this machine's files tell."""
    proof, flavour = record.proof or {}, record.case.lowering.split(":")[0]
    if record.status != "ok":
        return f"status is {record.status}" + (f": {record.reason}" if record.reason else "")
    if record.case.mode != "hot":
        return f"mode is {record.case.mode}: {trtexec.NAMES[flavour]} uses the same buffers again"
    if flavour not in tools:
        return f"{trtexec.NAMES[flavour]} is not installed, or not named by --with: {trtexec.INSTALL[flavour]}"
    if proof.get("engine_key") is None:
        return "its record names no engine of the cache: what a sweep did not build is not checked"
    key = str(proof["engine_key"])
    stored = cache.fetch(key)[0] if re.fullmatch(r"[0-9a-f]{16}", key) else None
    if stored is None or stored[1]["engine_sha256"] != proof.get("engine_sha256"):
        return f"its engine is not in {cache.folder()}"
    return None


def elsewhere(record: Record, then: Mapping[str, Any], here: Machine) -> str | None:
    """Why this machine's device is not the one that a record was measured on; None when it is, or nobody can tell.

    then: the testbed of the run; here: what the job `environment` found.
    """
    device = record.case.device
    if device not in here.devices:
        return f"{device} is not there"
    index = int(device.split(":")[1])
    names = [dict(enumerate(testbed.get("gpus") or ())).get(index) for testbed in (then, here.testbed)]
    if None in names or names[0] == names[1]:
        return None
    return f"another device: measured on {names[0]}, here {device} is {names[1]}"


def measure_of(manifest: Manifest) -> Measure:
    """How a run was measured, without what adds nothing to its times."""
    known = {field.name for field in dataclasses.fields(Measure)}
    measure = Measure(**{name: value for name, value in manifest.measure.items() if name in known})
    return dataclasses.replace(measure, energy=False)


def command_of(record: Record) -> list[str]:
    """The arguments that time a record's engine, made of its fields: no command of a run folder's is run as it is."""
    proof, case = record.proof or {}, record.case
    engine, device = cache.engine_path(proof["engine_key"]), int(case.device.split(":")[1])
    shapes = {name: [int(side) for side in proof["shapes"][name]] for name in proof["profile"]}
    flavour = case.lowering.split(":")[0]
    return trtexec.arguments(flavour, proof["tensorrt_version"], engine, device, shapes, graphed=_graphed(record))


def _graphed(record: Record) -> bool:
    return "graph" in lowerings.parse(record.case.lowering)[1]


def _timed(
    record: Record, asked: Session, tools: Mapping[str, str], measure: Measure, order: Sequence[Sequence[str]]
) -> Checked:
    """The entry of a record whose engine is here, with a program to time it."""
    program, arguments = tools[record.case.lowering.split(":")[0]], command_of(record)
    planned = Planned(record.case, asked.describe(record.case.model))
    theirs = functools.partial(trtexec.time, program, arguments, graphed=_graphed(record), timeout_s=measure.timeout)
    try:
        with tempfile.TemporaryDirectory(prefix="mixprof-crosscheck-") as folder:
            taken = [block_times(sides, planned, record, measure, Path(folder), theirs) for sides in order]
    except (Unchecked, Unsupported, ServerDied) as error:
        return unchecked(record, str(error))
    return checked(record, taken, shlex.join([program, *arguments]))


def block_times(
    sides: Sequence[str], planned: Planned, record: Record, measure: Measure, scratch: Path, theirs: Callable[[], float]
) -> list[tuple[str, float]]:
    """Milliseconds of each turn of a block, ours from processes of a server of its own, as in a round of a sweep."""
    threads = measure.threads or default_threads()
    taken = []
    with Server(scratch, local.preload([planned]), threads, measure.allocator) as server:
        bench = launching.Bench(server, measure)
        for side in sides:
            ms = median_ms(launching.launch_case(planned, bench), record) if side == OURS else theirs()
            taken.append((side, ms))
    return taken


def median_ms(launch: Launch, record: Record) -> float:
    """The median device time of a launch of ours (of requests, on a CPU); Unchecked when it is not of this engine."""
    times = launch.host_ms if record.case.device == "cpu" else launch.gpu_ms
    if launch.status != "ok" or times is None:
        raise Unchecked(f"a launch of ours ended as {launch.status}" + (f": {launch.reason}" if launch.reason else ""))
    built, kept = ((each.proof or {}).get("engine_sha256") for each in (launch, record))
    if built != kept:
        raise Unchecked(f"another engine: here it is {str(built)[:12]}, in the run it was {str(kept)[:12]}")
    return statistics.median(times.samples)
