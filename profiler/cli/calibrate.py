"""`mixprof calibrate`: the same code against itself on this machine, and against itself with known extra work."""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from mixprof import models
from mixprof.data import calibrations
from mixprof.data.errors import NotTrusted, UsageError
from mixprof.data.run_folder import testbed_key
from mixprof.gate import grid
from mixprof.gate.alone import only_one
from mixprof.gate.rounds import Entry, Rounds
from mixprof.gate.sides import HERE, Side, side
from mixprof.machine.device import default_threads
from mixprof.plan.axes import Axes, Measure
from mixprof.reports.gate import calibration
from mixprof.reports.gate.verdicts import LOOKS
from mixprof.run.session import session

DEFAULT_MODELS = ("depthwise_conv", "window_attention")
INJECTED = 0.05  # the slow-down that power is measured at
LEAST_ROUNDS = LOOKS[0]


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--models", metavar="A,B", help=f"default: {','.join(DEFAULT_MODELS)}")
    command.add_argument(
        "--pairs", type=int, default=calibration.LEAST_PAIRS, metavar="N", help="A/A pairs over the grid (default: 20)"
    )
    command.add_argument(
        "--from", dest="jobs", nargs="+", metavar="DIR", help="pool the canaries of earlier ab jobs; measures nothing"
    )
    command.add_argument("--json", action="store_true", help="print JSON and nothing else")


def run_calibrate(arguments: argparse.Namespace, groups: list[Axes], measure: Measure) -> int:
    """Calibrate, keep it, print it."""
    if arguments.pairs < calibration.LEAST_PAIRS:
        raise UsageError(f"--pairs: got {arguments.pairs}, expected at least {calibration.LEAST_PAIRS}")
    with session(measure, models) as asked:
        testbed = asked.environment()["testbed"]
    generator = np.random.default_rng(measure.seed)
    if arguments.jobs:
        found = _pooled([Path(each) for each in arguments.jobs], testbed, generator)
    else:
        found = _measured(groups, measure, arguments.pairs, generator)
    path = calibrations.write(testbed, found)
    if arguments.json:
        print(json.dumps({**found, "file": str(path)}, indent=1))
    else:
        print(f"{calibrations.said(testbed)}\nkept for 7 days in {path}")
    return 0


def _pooled(folders: list[Path], testbed: dict[str, Any], generator: np.random.Generator) -> dict[str, Any]:
    """From the canaries of earlier jobs. UsageError for a folder without one, or when all have too few rounds."""
    jobs = []
    for folder in folders:
        path = folder / "ab.json" if folder.is_dir() else folder
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


def _measured(groups: list[Axes], measure: Measure, pairs: int, generator: np.random.Generator) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="mixprof-calibrate-") as folder, only_one():
        scratch = Path(folder)
        with side(HERE, scratch / "side", None, {}) as here:
            entries = _entries(groups, here, measure)
            rounds = max(LEAST_ROUNDS, math.ceil(pairs / len(entries)))
            same = _differences(entries, here, measure, scratch / "same", rounds, 0.0)
            slowed = _differences(entries, here, measure, scratch / "slowed", rounds, INJECTED)
    return {**calibration.summary(same, generator), "power": calibration.injected(slowed, INJECTED, generator)}


def _entries(groups: list[Axes], here: Side, measure: Measure) -> list[Entry]:
    with session(measure, models, python=here.python, path=here.path, folder=here.folder) as asked:
        planned = grid.of_side(groups, here, asked)
    entries, _, _ = grid.match(planned, planned)
    if not entries:
        reasons = [entry.reason for entry in planned.values() if entry.reason]
        raise UsageError(f"no case can be run here: {reasons[0] if reasons else 'the axes are empty'}")
    return entries


def _differences(
    entries: list[Entry],
    here: Side,
    measure: Measure,
    folder: Path,
    number: int,
    share: float,
    least: int = LEAST_ROUNDS,
) -> dict[str, list[float]]:
    """Rounds of every case against itself, one side with `share` more work. NotTrusted when no case has `least`."""
    folder.mkdir()
    rounds = Rounds(here, here, measure, folder, measure.threads or default_threads())
    rounds.more = {"head": {"extra_work": share}} if share else {}
    for index in range(number):
        rounds.run(entries, None, stop=lambda: False)
        print(f"mixprof: round {index + 1} of {number}, {share:.0%} injected", file=sys.stderr)
        if index + 1 == least and not rounds.pairs.differences:
            break  # nothing but disturbed rounds, or failures: more of them tell no more
    if rounds.pairs.failed:
        name, (_, status, reason) = next(iter(rounds.pairs.failed.items()))
        raise UsageError(f"{name} is {status} ({reason}), expected cases that run here: name others with --models")
    found = {key: each for key, each in rounds.pairs.differences.items() if len(each) >= least}
    if not found:
        raise NotTrusted("too much CPU time was lost to others in every round: end what else runs here, and try again")
    return found
