"""A sweep over a Ray cluster: a run folder for each testbed, with the same cases."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mixprof.data import fleet, run_folder
from mixprof.data.errors import UsageError
from mixprof.data.manifest import Peaks
from mixprof.plan.axes import Planned
from mixprof.plan.files import MODULES, is_file
from mixprof.plan.settings import Axes
from mixprof.plan.sources import Registry
from mixprof.run import user_code
from mixprof.run.executors import node as on_node
from mixprof.run.executors.ray import cluster
from mixprof.run.executors.ray.cluster import Node
from mixprof.run.executors.ray.dispatch import Dispatch, Job, say
from mixprof.run.executors.ray.surveys import Asker, Surveys
from mixprof.run.progress import Watch
from mixprof.run.session import planned_cases, session

if TYPE_CHECKING:
    from mixprof.run.sweep import Sweep

DEVICES = ("cpu", "cuda:0")  # of a task, which sees one GPU at most


def carry_out(sweep: Sweep, run: Path, registry: Registry, watch: Watch, resume: bool) -> list[Planned]:
    """Run a sweep into a new fleet folder, or go on with one. Returns the cases of each testbed."""
    if run.exists() and not run_folder.is_blank(run) and not (resume and fleet.is_fleet(run)):
        expected = "the fleet that --on ray began" if resume else "a new folder, or --resume to go on with it"
        raise UsageError(f"got '{run}', which exists, expected {expected}")
    with _connected(
        sweep.place.address, any(_travels(name, registry) for each in sweep.groups for name in each.models)
    ):
        groups = _with_devices(sweep.groups, cluster.nodes())
        with session(sweep.measure, registry, sweep.given) as asked:
            planned, _ = planned_cases(groups, asked)
            code = user_code.digests(planned, asked.server.imports)
        devices = {entry.case.device for entry in planned}
        chosen = cluster.chosen(sweep.place.accelerators, devices, cluster.nodes())
        surveys = Surveys(Asker(planned, sweep.measure, code), run)
        picked = surveys.pick(chosen)
        run.mkdir(parents=True, exist_ok=True)
        with run_folder.lock(run):
            surveys.open(picked)
            fleet.mark(run)
            _write_peaks(surveys, sweep, planned)
            _dispatch(surveys, sweep, planned, watch)
    return planned


@contextlib.contextmanager
def _connected(address: str | None, send_folder: bool) -> Iterator[None]:
    cluster.connect(address, send_folder)
    try:
        yield
    finally:
        cluster.leave()


def _travels(name: str, registry: Registry) -> bool:
    """Whether a model is a file, or code, of the user's own folder."""
    base, _, rest = name.partition(":")
    is_factory = base not in (*registry.MODELS, "timm") and bool(rest)
    return is_file(name) or name.endswith(MODULES) or is_factory


def _with_devices(groups: list[Axes], nodes: list[Node]) -> list[Axes]:
    """The groups with the cluster's usual device in the place of this machine's."""
    usual = "cuda:0" if any(node.can(["cuda:0"]) for node in nodes) else "cpu"
    for group in groups:
        for device in group.devices or ():
            if device.startswith("cuda") and device not in DEVICES:
                raise UsageError(f"--on ray: got device {device}, expected cuda:0: a task sees one GPU, whole")
    return [replace(group, devices=group.devices or (usual,)) for group in groups]


def _write_peaks(surveys: Surveys, sweep: Sweep, planned: list[Planned]) -> None:
    """Measure what each testbed can do at most, once, on the first of its nodes; a failure is said."""
    import ray

    asked = {}
    for bed in surveys.beds:
        if not (bed.journal.run / run_folder.PEAKS).exists():
            for device in {entry.case.device for entry in planned}:
                mine = [surveys.asker.sent(each) for each in planned if each.case.device == device and not each.reason]
                if mine:
                    task = cluster.on(bed.first, on_node.measured_peaks, device)
                    asked[task.remote(mine, sweep.measure, bed.machine)] = bed
    peaks: dict[str, list[Peaks]] = {}
    for answer, bed in asked.items():
        try:
            peaks.setdefault(bed.name, []).extend(ray.get(answer))
        except ray.exceptions.RayError as error:
            say(f"{bed.name}: no peaks, so no roofline: {type(error).__name__}")
    for bed in surveys.beds:
        if bed.name in peaks:
            run_folder.write_peaks(bed.journal.run, peaks[bed.name])


def _dispatch(surveys: Surveys, sweep: Sweep, planned: list[Planned], watch: Watch) -> None:
    launches = 0
    for bed in surveys.beds:
        for entry in planned:
            bed.journal.close(entry.case)
        jobs = [Job(surveys.asker.sent(entry)) for entry in planned if bed.journal.remaining(entry.case)]
        random.Random(sweep.measure.seed).shuffle(jobs)
        bed.waiting.extend(jobs)
        launches += sum(len(bed.journal.remaining(job.entry.case)) for job in jobs if not job.entry.reason)
    with watch.over(launches) as progress:
        Dispatch(cluster.RayTasks(), surveys.beds, sweep.measure, progress, watch.stop, surveys.hear).run()
