"""A sweep from its axes to a run folder, whoever asks for it: the command line or a Python function."""

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from mixprof import lowerings
from mixprof.data import run_folder
from mixprof.data.case import Case
from mixprof.data.errors import UsageError
from mixprof.data.manifest import Manifest
from mixprof.plan.axes import Planned, plan_case
from mixprof.plan.files import Given
from mixprof.plan.place import Place
from mixprof.plan.settings import Axes, Measure
from mixprof.plan.shards import Shard
from mixprof.plan.sources import Registry
from mixprof.run import fleet, user_code
from mixprof.run import peaks as machine_peaks
from mixprof.run.executors import EXECUTORS, local
from mixprof.run.progress import Watch
from mixprof.run.session import manifest_of, planned_cases, refuse_other, session
from mixprof.run.sharding import part


@dataclass(frozen=True)
class Sweep:
    """The axes of a sweep, how its cases are measured, and what its files are fed with."""

    groups: list[Axes]
    measure: Measure
    given: Given = field(default_factory=Given)
    shard: Shard | None = None  # None: all of it
    place: Place = field(default_factory=Place)


def carry_out(
    sweep: Sweep,
    run: Path,
    registry: Registry,
    watch: Watch,
    resume: bool = False,
    next_cases: Callable[[Path], list[Case]] | None = None,
) -> list[Planned]:
    """Run a sweep into a new folder, or go on with one. Returns its cases, those of `next_cases` included.

    next_cases: what to add to a run that is done so far; asked again until it names none.
    """
    if sweep.place.engine == "ray":
        return fleet.carry_out(sweep, run, registry, watch, resume)
    stored = _stored(run, resume)
    with session(sweep.measure, registry, sweep.given) as asked:
        whole, machine = planned_cases(sweep.groups, asked)
        planned = part(whole, sweep.shard, sweep.measure, asked, machine) if sweep.shard else whole
        code = user_code.digests(whole, asked.server.imports)
        peaks = [] if (run / run_folder.PEAKS).exists() else machine_peaks.of_cases(planned, asked, machine)
    manifest = manifest_of(whole, sweep.measure, machine, code)
    if sweep.shard:
        manifest = replace(manifest, sweep=replace(manifest.sweep, shards=(str(sweep.shard),)))
    if stored is not None:
        refuse_other(run, stored, manifest)
    local.check_cache(planned)
    run.mkdir(parents=True, exist_ok=True)
    with run_folder.lock(run):
        if stored is None:
            _begin(run, manifest)
        if peaks:
            run_folder.write_peaks(run, peaks)
        set_torn_lines_aside(run)
        _execute(planned, run, sweep.measure, watch)
        while next_cases is not None and not watch.stop() and (added := _more(next_cases(run), planned)):
            planned += added
            # A sweep of its own: launches of cases that are added are closer in time than those of the grid.
            _execute(added, run, sweep.measure, watch)
    return planned


@contextlib.contextmanager
def passing(sweep: Sweep, registry: Registry, watch: Watch) -> Iterator[Path]:
    """The run folder of a sweep that is carried out now. It is gone afterwards."""
    with session(sweep.measure, registry, sweep.given) as asked:
        planned, machine = planned_cases(sweep.groups, asked)
    with tempfile.TemporaryDirectory(prefix="mixprof-time-") as folder:
        run = Path(folder) / "run"
        run.mkdir()
        run_folder.write_manifest(run, manifest_of(planned, sweep.measure, machine))
        _execute(planned, run, sweep.measure, watch)
        yield run


def set_torn_lines_aside(run: Path) -> None:
    for message in run_folder.set_torn_lines_aside(run):
        print(f"mixprof: {message}", file=sys.stderr)


def _stored(run: Path, resume: bool) -> Manifest | None:
    """The manifest of the run to go on with; None where a new one begins. UsageError for a folder of something else."""
    blank = run_folder.is_blank(run)
    if run.exists() and not resume and not blank:
        raise UsageError(f"got '{run}', which exists, expected a new folder, or --resume to go on with it")
    return run_folder.read_manifest(run) if resume and not blank else None


def _begin(run: Path, manifest: Manifest) -> None:
    if (run / run_folder.MANIFEST).exists():
        raise UsageError(f"got '{run}', which another sweep has begun since, expected a new folder: use another --out")
    run_folder.write_manifest(run, manifest)


def _more(cases: list[Case], planned: list[Planned]) -> list[Planned]:
    if cases:
        print(f"mixprof: {len(cases)} more cases between those where two models swap places", file=sys.stderr)
    sources = {entry.case.model: entry.source for entry in planned}
    return [plan_case(case, sources[case.model]) for case in cases]


def _execute(planned: list[Planned], run: Path, measure: Measure, watch: Watch) -> None:
    profiled = sum(lowerings.layers_of(entry.case.lowering) is not None for entry in planned) if measure.layers else 0
    possible = sum(entry.reason is None for entry in planned)
    with watch.over(possible * measure.rounds + profiled) as progress:
        EXECUTORS["local"](planned, run, measure, progress, stop=watch.stop)
