"""`mixprof crosscheck`: TensorRT engines timed again by NVIDIA's own programs."""

import argparse
import sys
from functools import partial
from pathlib import Path

from mixprof import models
from mixprof.cli.command import Command, add_json, add_list, print_json
from mixprof.data import run_folder
from mixprof.data.json import to_builtins
from mixprof.plan.values import whole_number
from mixprof.run import agreement, crosscheck
from mixprof.run.sweep import set_torn_lines_aside


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder", metavar="RUN", help="a run with records of tensorrt or tensorrt_rtx")
    which = "trtexec or tensorrt_rtx, or a path; twice for both (default: what PATH has)"
    add_list(command, "--with", "PROGRAM", which)
    command.add_argument("--blocks", default=str(agreement.LEAST_BLOCKS), metavar="N", help="A B B A, 5 or more")
    command.add_argument("--seed", default="0", metavar="S", help="of who starts")
    add_json(command)


def run(arguments: argparse.Namespace) -> int:
    from mixprof.reports.text.markdown import plain_table

    folder = Path(arguments.folder)
    run_folder.read_manifest(folder)
    tools = crosscheck.programs(getattr(arguments, "with"))
    blocks = whole_number(agreement.LEAST_BLOCKS).parse(arguments.blocks, "--blocks")
    seed = whole_number(0).parse(arguments.seed, "--seed")
    with run_folder.lock(folder):
        set_torn_lines_aside(folder)
        say = partial(print, file=sys.stderr)
        checked = crosscheck.check(folder, tools, models, blocks=blocks, seed=seed, say=say)
        run_folder.write_crosscheck(folder, checked)
    print_json(to_builtins(checked)) if arguments.json else print(plain_table(agreement.rows(checked)))
    print(f"{folder}: {agreement.summary(checked)}", file=sys.stderr if arguments.json else sys.stdout)
    return agreement.exit_code(checked)


EXAMPLES = ("crosscheck runs/mine --with trtexec", "crosscheck runs/mine --blocks 10 --json")
COMMAND = Command("a run's TensorRT figures beside trtexec's, in turns", add_options, run, EXAMPLES)
