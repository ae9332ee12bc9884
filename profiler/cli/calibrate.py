"""`mixprof calibrate`: the same code against itself on this machine, and against itself with known extra work."""

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mixprof import models
from mixprof.api import VERDICTS
from mixprof.cli.command import Command, add_axes, add_json, add_measure, print_json, read_sweep
from mixprof.data import calibrations
from mixprof.data.errors import UsageError
from mixprof.data.testbed import testbed_key
from mixprof.gate.itself import LEAST_ROUNDS, Work, against_itself, cases_against_themselves
from mixprof.gate.lock import only_one
from mixprof.gate.sides import HERE, Setup, side
from mixprof.plan.settings import Axes, Measure
from mixprof.reports.gate import calibration
from mixprof.run.session import session

DEFAULT_MODELS = ("depthwise_conv", "window_attention")
INJECTED = 0.05  # the slow-down that power is measured at


def _say(line: str) -> None:
    print(f"mixprof: {line}", file=sys.stderr)


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--models", metavar="A,B", help=f"default: {','.join(DEFAULT_MODELS)}")
    least, pool = calibration.LEAST_PAIRS, "pool the canaries of earlier ab jobs; measures nothing"
    command.add_argument("--pairs", type=int, default=least, metavar="N", help="A/A pairs over the grid (default: 20)")
    command.add_argument("--from", dest="jobs", nargs="+", metavar="DIR", help=pool)
    add_json(command)
    add_axes(command, but=("models",))
    add_measure(command, "any")


def run(arguments: argparse.Namespace) -> int:
    """Calibrate, keep it, print it."""
    if not arguments.models:
        arguments.models = ",".join(DEFAULT_MODELS)
    sweep = read_sweep(arguments)
    measure = sweep.measure
    if arguments.pairs < calibration.LEAST_PAIRS:
        raise UsageError(f"--pairs: got {arguments.pairs}, expected at least {calibration.LEAST_PAIRS}")
    with session(measure, models) as asked:
        machine = asked.machine()
    testbed = machine.testbed_of(device for group in sweep.groups for device in group.devices or machine.devices[-1:])
    generator = np.random.default_rng(measure.seed)
    if arguments.jobs:
        calibrated = _pooled(list(map(Path, arguments.jobs)), testbed, generator)
    else:
        calibrated = _measured(sweep.groups, measure, arguments.pairs, generator)
    path = calibrations.write(testbed, calibrated)
    if arguments.json:
        print_json({**calibrated, "file": str(path)})
    else:
        print(f"{calibrations.in_words(testbed)}\nkept for 7 days in {path}")
    return 0


def _pooled(folders: list[Path], testbed: dict[str, Any], generator: np.random.Generator) -> dict[str, Any]:
    """From the canaries of earlier jobs. UsageError for a folder without one, or when all have too few rounds."""
    jobs = []
    for folder in folders:
        path = folder / VERDICTS if folder.is_dir() else folder
        try:
            jobs.append(json.loads(path.read_text()))
        except (OSError, ValueError) as error:
            raise UsageError(
                f"got '{path}', which cannot be read ({error}), expected what `mixprof ab --out` writes"
            ) from None
    differences = calibration.pooled(jobs, testbed_key(testbed))
    if len(differences) < calibration.LEAST_PAIRS:
        raise UsageError(
            f"got {len(differences)} canary rounds of this machine's testbed in {len(jobs)} jobs, "
            f"expected {calibration.LEAST_PAIRS}: name more jobs, or measure here without --from"
        )
    return calibration.summary({"canary": differences}, generator)


def _measured(groups: Sequence[Axes], measure: Measure, pairs: int, generator: np.random.Generator) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="mixprof-calibrate-") as folder, only_one(groups, _say):
        scratch = Path(folder)
        with side(HERE, scratch / "side", Setup(), {}) as here:
            grid = cases_against_themselves(groups, here, measure, models)
            rounds = max(LEAST_ROUNDS, math.ceil(pairs / len(grid)))
            same = against_itself(grid, here, measure, Work(scratch / "same", rounds, 0.0), _say)
            slowed = against_itself(grid, here, measure, Work(scratch / "slowed", rounds, INJECTED), _say)
    alike, slower = ({case.label(): pool for case, pool in pools.items()} for pools in (same, slowed))
    return {**calibration.summary(alike, generator), "power": calibration.injected(slower, INJECTED, generator)}


EXAMPLES = ("calibrate", "calibrate --models my.zoo:net --pairs 40")
COMMAND = Command("what a gate can tell on this machine: the same code against itself", add_options, run, EXAMPLES)
