"""`mixprof report`: figures, tables and data."""

import argparse
from pathlib import Path

from mixprof.cli.command import Command
from mixprof.cli.runs import runs_of
from mixprof.data.errors import UsageError


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("runs", nargs="+", metavar="RUN", help="a run folder or its URL; several stand side by side")
    command.add_argument("--out", required=True, metavar="DIR", help="a folder for index.html and its files")


def run(arguments: argparse.Namespace) -> int:
    from mixprof.reports.export import write_report

    out = Path(arguments.out)
    if out.exists() and not out.is_dir():
        raise UsageError(f"got --out '{out}', which is a file, expected a folder")
    with runs_of(arguments.runs) as runs:
        for path in write_report(runs, out):
            print(path)
    return 0


EXAMPLES = ("report runs/mine --out report", "report runs/before runs/after --out side-by-side")
COMMAND = Command("figures, tables and data of one or more runs", add_options, run, EXAMPLES)
