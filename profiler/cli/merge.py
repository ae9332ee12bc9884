"""`mixprof merge`: shards of a sweep, or runs of several testbeds, as one run or fleet."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mixprof.cli.command import Command, next_report
from mixprof.cli.runs import runs_of
from mixprof.run.merging import merge


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("runs", nargs="+", metavar="RUN", help="run folders or URLs, as shards or fleets of one sweep")
    command.add_argument(
        "--out", required=True, metavar="RUN", help="a new folder; of several testbeds, a run for each"
    )
    command.add_argument(
        "--strict", action="store_true", help="exit code 4 if a shard or a case is missing or in conflict"
    )


def run(arguments: argparse.Namespace) -> int:
    out = Path(arguments.out)
    with runs_of(arguments.runs) as runs:
        amiss = merge(runs, out)
    for message in amiss:
        print(f"mixprof: {message}", file=sys.stderr)
    print(f"{out}\n{next_report(out)}")
    return 4 if amiss and arguments.strict else 0


COMMAND = Command(
    "put shards and runs of a sweep together",
    add_options,
    run,
    ("merge runs/1 runs/2 runs/3 --out runs/all", "merge runs/h100 runs/l4 --out runs/fleet --strict"),
)
