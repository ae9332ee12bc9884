"""The gate's commands: their options put together of axes, settings and what each adds."""

from __future__ import annotations

import argparse

from mixprof.cli import ab, accept, bisect, calibrate, check
from mixprof.cli.command import Command, add_axes, add_json, add_measure, read_sweep


def _ab_options(command: argparse.ArgumentParser) -> None:
    ab.add_options(command)
    add_axes(command)
    add_measure(command, "any")


def _run_ab(arguments: argparse.Namespace) -> int:
    sweep = read_sweep(arguments)
    return ab.run_ab(arguments, sweep.groups, sweep.measure)


def _bisect_options(command: argparse.ArgumentParser) -> None:
    bisect.add_options(command)
    add_axes(command)
    add_measure(command, "any")


def _calibrate_options(command: argparse.ArgumentParser) -> None:
    calibrate.add_options(command)
    add_axes(command, but=("models",))
    add_measure(command, "any")


def _run_calibrate(arguments: argparse.Namespace) -> int:
    if not arguments.models:
        arguments.models = ",".join(calibrate.DEFAULT_MODELS)
    sweep = read_sweep(arguments)
    return calibrate.run_calibrate(arguments, sweep.groups, sweep.measure)


def _check_options(command: argparse.ArgumentParser) -> None:
    check.add_check_options(command)
    add_json(command)


AB = Command(
    "two revisions, environments or settings, interleaved in one job",
    _ab_options,
    _run_ab,
    (
        "ab main HEAD --models my.zoo:net --budget 300",
        "ab --models swin_t --base-set lowering=eager --head-set lowering=compile",
    ),
)
BISECT = Command(
    "the commit at which one case regressed, through git's own bisect",
    _bisect_options,
    bisect.run_bisect,
    ("bisect v1.0 HEAD --models my.zoo:net", "bisect v1.0 HEAD --models my.zoo:net --exact-only"),
)
ACCEPT = Command(
    "let a case regress until a day, in a file to commit",
    accept.add_options,
    accept.run,
    (
        "accept 'my.zoo:net eager cpu float32 b1 224x224' --reason 'new head' --until 2026-12-31",
        "accept 'all cases' --reason 'new torch' --until 2026-12-31",
    ),
)
CALIBRATE = Command(
    "what a gate can tell on this machine: the same code against itself",
    _calibrate_options,
    _run_calibrate,
    ("calibrate", "calibrate --models my.zoo:net --pairs 40"),
)
CHECK = Command(
    "a run against stored ones",
    _check_options,
    check.run_check,
    ("check runs/mine --against mixprof-baseline.txt", "check runs/mine --against history/ --add"),
)
BASELINE = Command(
    "a small text baseline of a run, to commit",
    check.add_baseline_options,
    check.run_baseline,
    ("baseline runs/mine", "baseline runs/* --out baseline.txt"),
)
