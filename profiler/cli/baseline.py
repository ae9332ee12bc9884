"""`mixprof baseline`: a small text baseline of runs, to commit."""

import argparse
from pathlib import Path

from mixprof.cli.command import Command
from mixprof.data.errors import UsageError
from mixprof.data.files import write_whole
from mixprof.reports.gate import baseline, stored
from mixprof.reports.gate.check import COMPARES
from mixprof.reports.gate.history import LEAST_RUNS

DEFAULT = "mixprof-baseline.txt"


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("runs", nargs="+", metavar="RUN", help="a run folder; eight or more to judge times by")
    command.add_argument("--out", default=DEFAULT, metavar="FILE", help=f"default: {DEFAULT}")


def run(arguments: argparse.Namespace) -> int:
    """Write the text baseline of one or more runs. Times that did not change beyond noise stay as they were."""
    out = Path(arguments.out)
    new = baseline.of_many(str(out), [stored.of_run(Path(run)) for run in arguments.runs])
    kept = [case for case in new.newest.cases.values() if case.status in COMPARES]
    if not kept:
        first = next(iter(new.newest.cases.values()))
        raise UsageError(f"got runs without a case that is ok ({first.status}: {first.reason}), expected at least one")
    changed = len(kept)
    if out.exists():
        new, changed = baseline.renewed(baseline.read(out), new)
    write_whole(out, baseline.as_text(new).encode())
    timed = sum(level.runs >= LEAST_RUNS for level in new.levels.values())
    print(f"{out}: {len(kept)} cases, {changed} changed, {timed} with runs enough to judge times by")
    return 0


EXAMPLES = ("baseline runs/mine", "baseline runs/* --out baseline.txt")
COMMAND = Command("a small text baseline of a run, to commit", add_options, run, EXAMPLES)
