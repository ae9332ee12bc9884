"""`mixprof accept`: write a waiver into a file that is reviewed and committed."""

import argparse
import datetime
from pathlib import Path

from mixprof.cli.command import Command
from mixprof.reports.gate import waivers
from mixprof.reports.gate.exporters import write


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("case", metavar="CASE", help="its name in the table of verdicts; also a family or 'all cases'")
    command.add_argument("--reason", required=True, metavar="TEXT", help="for those who review it")
    command.add_argument("--until", required=True, metavar="DATE", help="the last day on which it counts: 2026-12-31")
    command.add_argument("--file", default=str(waivers.DEFAULT), metavar="FILE", help=f"default: {waivers.DEFAULT}")


def run(arguments: argparse.Namespace) -> int:
    """Add a waiver, or replace that of the same case."""
    path = Path(arguments.file)
    new = waivers.Waiver(arguments.case, arguments.reason, waivers.parse_date(arguments.until))
    before = waivers.read(path) if path.exists() else ()
    write(path, waivers.as_toml(waivers.accept(before, new, datetime.date.today())))
    print(f"{path}: {new.case} may regress until {new.until}: {new.reason}")
    return 0


COMMAND = Command("let a case regress until a day, in a file to commit", add_options, run, (
    "accept 'my.zoo:net eager cpu float32 b1 224x224' --reason 'new head' --until 2026-12-31",
    "accept 'all cases' --reason 'new torch' --until 2026-12-31",
))  # fmt: skip
