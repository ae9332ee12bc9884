"""`mixprof report`: figures, tables and data."""

import argparse
import os
from pathlib import Path

from mixprof.cli.command import Command
from mixprof.data import run_folder
from mixprof.data.errors import UsageError
from mixprof.data.fleet import expanded
from mixprof.run.sweep import set_torn_lines_aside


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("runs", nargs="+", metavar="RUN", help="a run folder; several stand side by side")
    command.add_argument("--out", required=True, metavar="DIR", help="a folder for index.html and its files")


def run(arguments: argparse.Namespace) -> int:
    from mixprof.reports.export import write_report

    runs = runs_of(arguments.runs)
    out = Path(arguments.out)
    if out.exists() and not out.is_dir():
        raise UsageError(f"got --out '{out}', which is a file, expected a folder")
    for path in write_report(runs, out):
        print(path)
    return 0


def runs_of(folders: list[str]) -> list[Path]:
    """The run folders that these are or hold, a torn last line of each set aside."""
    runs = expanded(folders)
    for folder in runs:
        run_folder.read_manifest(folder)
        if os.access(folder, os.W_OK):
            with run_folder.lock(folder):  # lines of a live sweep are not torn, they are being written
                set_torn_lines_aside(folder)
    return runs


EXAMPLES = ("report runs/mine --out report", "report runs/before runs/after --out side-by-side")
COMMAND = Command("figures, tables and data of one or more runs", add_options, run, EXAMPLES)
