"""`mixprof time`: the quick look."""

import argparse
import statistics
import sys
from pathlib import Path

from mixprof import models
from mixprof.cli.command import Command, add_axes, add_depth, add_files, add_measure, check_depth, read_sweep
from mixprof.cli.watch import Interruptible
from mixprof.data import run_folder
from mixprof.plan.settings import AXES
from mixprof.run.sweep import passing


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("models", nargs="+", metavar="MODEL", help=AXES["models"].help)
    add_axes(command, but=("models",))
    add_measure(command, "any", "launches")
    add_depth(command)
    add_files(command)


def run(arguments: argparse.Namespace) -> int:
    check_depth(arguments.depth, "--layers", asked=arguments.layers)
    arguments.models = ",".join(arguments.models)
    watch = Interruptible()
    with passing(read_sweep(arguments), models, watch) as folder:
        print(_table(folder))
        for record in run_folder.read_records(folder):
            branches = (record.proof or {}).get("modules")
            if branches and not record.case.is_anchor:
                from mixprof.reports.text import module_tree

                print(f"\n{record.case.label()}\n{module_tree.as_text(module_tree.pruned(branches, arguments.depth))}")
    return watch.exit_code


EXAMPLES = (
    "time depthwise_conv window_attention --resolutions 14,28",
    "time my.zoo:net --lowerings eager,compile --quick",
)


def _table(folder: Path) -> str:
    """Cases and latencies; without pandas a line each, the median of the first launch in the device's own time."""
    try:
        from mixprof.reports.text import summary

        return summary.short(folder)
    except ModuleNotFoundError as error:
        print(f"mixprof: no intervals: {error.name} is not installed (python scripts/missing.py)", file=sys.stderr)
    lines = []
    for record in run_folder.read_records(folder):
        samples = [launch.gpu_ms or launch.host_ms for launch in record.launches if launch.status == "ok"]
        ms = [f"{statistics.median(launch.samples):.4g} ms" for launch in samples[:1] if launch is not None]
        lines.append(f"{record.case.label()}  {record.status}  {ms[0] if ms else record.reason or ''}")
    return "\n".join(lines)


COMMAND = Command("measure now, print one table, leave nothing behind", add_options, run, EXAMPLES)
