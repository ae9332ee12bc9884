"""`mixprof sweep`: a run folder of records."""

import argparse
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mixprof import lowerings, models
from mixprof.cli.command import Command, next_report, read_sweep
from mixprof.cli.places import add_place, read_place, run_batch
from mixprof.cli.plan import add_sweep
from mixprof.cli.watch import Interruptible
from mixprof.data import cache, run_folder
from mixprof.data.case import Case
from mixprof.data.errors import UsageError
from mixprof.data.files import new_folder
from mixprof.data.fleet import runs_in
from mixprof.data.histories import is_url
from mixprof.data.record import Record
from mixprof.plan.shards import Shard
from mixprof.run.progress import Watch
from mixprof.run.remote import Sending, working_copy
from mixprof.run.sweep import Sweep, carry_out


def add_options(command: argparse.ArgumentParser) -> None:
    add_sweep(command)
    command.add_argument("--out", metavar="RUN", help="a new folder, or URL as s3://bucket/run (default: runs/<time>)")
    command.add_argument("--resume", action="store_true", help="go on with the run in --out")
    more = "then add cases between those where two models swap places"
    command.add_argument("--refine", choices=("crossover",), help=more)
    add_place(command)
    command.add_argument("--strict", action="store_true", help="exit code 4 unless every case is ok")


def run(arguments: argparse.Namespace) -> int:
    place, shard = read_place(arguments), Shard.parse(arguments.shard) if arguments.shard else None
    sweep = replace(read_sweep(arguments), shard=shard, place=place)
    if place.is_batch:
        return run_batch(arguments, place)
    if arguments.resume and arguments.out is None:
        raise UsageError("got --resume without --out, expected --out RUN, the run to go on with")
    out = arguments.out or str(new_folder())
    if not is_url(out):
        return _into(Path(out), out, sweep, Interruptible(), arguments)
    with working_copy(out, arguments.resume) as (folder, remote, claim):
        return _into(
            folder, out, sweep, Interruptible(), arguments, lambda watch: Sending(watch, remote, folder, claim)
        )


def _into(
    folder: Path,
    out: str,
    sweep: Sweep,
    watch: Interruptible,
    arguments: argparse.Namespace,
    sending: Callable[[Watch], Watch] = lambda watch: watch,
) -> int:
    """Run the sweep into a folder, which stands for what `out` names; the exit code."""
    next_cases = _between_crossovers if arguments.refine else None
    planned = carry_out(sweep, folder, models, sending(watch), arguments.resume, next_cases)
    by_run = [run_folder.read_records(run) for run in runs_in(folder)]
    cases = sum(len({entry.case for entry in planned} | {record.case for record in run}) for run in by_run)
    records = [record for run in by_run for record in run]
    _print_outcome(out, cases, [record.status for record in records])
    _print_engines(records)
    if watch.interrupted:
        return watch.exit_code
    return 4 if arguments.strict and any(record.status != "ok" for record in records) else 0


def _between_crossovers(folder: Path) -> list[Case]:
    from mixprof.reports.answers.refine import next_cases
    from mixprof.reports.frame import load

    return next_cases(load(folder))


def _print_outcome(folder: str, cases: int, statuses: list[str]) -> None:
    counts = ", ".join(f"{statuses.count(status)} {status}" for status in sorted(set(statuses)))
    left = cases - len(statuses)
    more = f", {left} not yet run: mixprof sweep … --out {shlex.quote(folder)} --resume" if left else ""
    print(f"{folder}: {counts or 'no case'}{more}")
    if not left:
        print(next_report(folder))


def _print_engines(records: list[Record]) -> None:
    """How many engines a run built and how many it took from the cache, and what was wrong with those there."""
    engines = [record for record in records if lowerings.parse(record.case.lowering)[0].engine and record.proof]
    if engines:
        cached = sum(record.build_cached is True for record in engines)
        print(f"engines: {len(engines) - cached} built, {cached} found in {cache.folder()}")
    for record in engines:
        if warning := (record.proof or {}).get("warning"):
            print(f"mixprof: warning: {warning}", file=sys.stderr)


EXAMPLES = ("sweep", "sweep mine.toml --launches 8 --out runs/mine --resume")
COMMAND = Command("run a sweep into a run folder", add_options, run, EXAMPLES)
