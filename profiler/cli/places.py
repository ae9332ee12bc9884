"""The options that say where a sweep runs, and the sweeps that batch systems run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mixprof.cli.command import next_report
from mixprof.data.errors import UsageError
from mixprof.plan.place import Place
from mixprof.plan.settings import AXES, MEASURE
from mixprof.run.batch import Batch, kubernetes, slurm


def add_place(command: argparse.ArgumentParser) -> None:
    """Options for shards and engines."""
    for option, metavar, help in (
        ("--shard", "I/N", "run the I-th of N parts of about as many seconds each (default: all of it)"),
        ("--on", "ENGINE", "ray, ray://host:port, slurm or kubernetes (default: this machine)"),
        ("--accelerators", "A,B", "labels of a Ray cluster's nodes, a testbed each (default: any node)"),
        ("--shards", "N", "jobs of slurm or kubernetes (default: none)"),
        (
            "--job",
            "KEY=VALUE,…",
            "partition, gres, time, … of slurm, image, claim, gpus, … of kubernetes (default: none)",
        ),
    ):
        command.add_argument(option, metavar=metavar, help=help)
    command.add_argument("--print", action="store_true", help="with slurm: print a script for sbatch, submit nothing")


def read_place(arguments: argparse.Namespace) -> Place:
    """UsageError for options that do not go together."""
    place = Place.parse(arguments.on, arguments.accelerators, arguments.shards, arguments.job)
    place.refuse_beside(arguments.shard, arguments.refine)
    if arguments.print and place.engine != "slurm":
        raise UsageError("got --print, expected --on slurm with it")
    if place.is_batch and arguments.out is None:
        raise UsageError(f"got --on {place.engine} without --out, expected --out RUN, the run that its shards become")
    return place


def run_batch(arguments: argparse.Namespace, place: Place) -> int:
    """Print or submit the jobs of a sweep's shards."""
    batch = Batch(_command(arguments), place, arguments.out)
    if place.engine == "kubernetes":
        print(kubernetes.manifest(batch), end="")
        return 0
    if arguments.print:
        print(slurm.script(batch), end="")
        return 0
    amiss = slurm.run(batch)
    for message in amiss:
        print(f"mixprof: {message}", file=sys.stderr)
    if not Path(batch.out).exists():
        print(f"mixprof: not merged: the same command again goes on in {batch.shards}", file=sys.stderr)
        return 4
    print(f"{batch.out}\n{next_report(batch.out)}")
    return 4 if amiss and arguments.strict else 0


def _command(arguments: argparse.Namespace) -> tuple[str, ...]:
    """The sweep as it was asked for, its place and folder left out."""
    words = ["sweep", *([arguments.file] if arguments.file else [])]
    for name in (*AXES, *MEASURE, "inputs"):
        value = getattr(arguments, name, None)
        option = f"--{name.replace('_', '-')}"
        words += [option] if value is True else [option, str(value)] if value else []
    for name in ("input", "shape"):
        words += [word for value in getattr(arguments, name) or () for word in (f"--{name}", value)]
    return tuple(words)
