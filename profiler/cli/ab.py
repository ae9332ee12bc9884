"""`mixprof ab`: two revisions, environments or settings, interleaved in one job."""

import argparse
from pathlib import Path

from mixprof.api import VERDICTS, compare
from mixprof.cli import gate_options
from mixprof.cli.command import Command, add_axes, add_files, add_json, add_list, add_measure, read_sweep
from mixprof.data.files import new_folder
from mixprof.gate.ab import Spec
from mixprof.gate.grid import parse_overrides
from mixprof.gate.sides import HERE


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of `ab`."""
    command.add_argument("base", nargs="?", default=HERE, metavar="BASE", help="revision, python:PATH, '.', merge-base")
    command.add_argument("head", nargs="?", default=HERE, metavar="HEAD", help="likewise (default: '.', as it is)")
    gate_options.add_setup(command, "run in each revision's work tree, in an environment of its own")
    for side in ("base", "head"):
        add_list(command, f"--{side}-set", "NAME=VALUE", "a setting of this side")
    command.add_argument("--exact-only", action="store_true", help="counts alone: no time is measured")
    command.add_argument("--budget", type=float, metavar="S", help="seconds for the whole job, at most")
    gate_options.add_options(command, retry=True)
    command.add_argument("--out", metavar="DIR", help="a new folder for samples and verdicts (default: runs/ab-<time>)")
    add_json(command)
    add_files(command)
    add_axes(command)
    add_measure(command, "any")


def run(arguments: argparse.Namespace) -> int:
    """Compare BASE with HEAD; the exit code of the policy."""
    sweep = read_sweep(arguments)
    gate_options.refuse_no_model(arguments)
    policy = gate_options.policy_of(arguments)
    out = Path(arguments.out or new_folder("ab-"))
    keeps = arguments.out is not None or not arguments.exact_only
    spec = Spec(
        sweep.groups, arguments.base, arguments.head, sweep.measure,
        base_set=parse_overrides(arguments.base_set, "--base-set"),
        head_set=parse_overrides(arguments.head_set, "--head-set"),
        given=sweep.given, prepare=arguments.prepare, pythonpath=arguments.pythonpath,
        exact_only=arguments.exact_only, budget_s=arguments.budget,
        out=out if keeps else None, hidden=arguments.out is None,
    )  # fmt: skip
    return gate_options.conclude(compare(spec, policy), policy, arguments, out / VERDICTS if keeps else None)


COMMAND = Command("two revisions, environments or settings, interleaved in one job", add_options, run, (
    "ab main HEAD --models my.zoo:net --budget 300",
    "ab --models swin_t --base-set lowering=eager --head-set lowering=compile",
))  # fmt: skip
