"""`mixprof plan`: what a sweep would run."""

import argparse
from dataclasses import asdict

from mixprof import models
from mixprof.cli.command import Command, add_axes, add_files, add_json, add_measure, print_json, read_sweep
from mixprof.data.errors import UsageError
from mixprof.plan import prediction
from mixprof.plan.values import BYTES
from mixprof.run import fitting, outlook
from mixprof.run.session import planned_cases, session


def add_sweep(command: argparse.ArgumentParser) -> None:
    """A sweep file, axes, settings and inputs of files, as `plan` and `sweep` take them."""
    command.add_argument("file", nargs="?", metavar="SWEEP.toml", help="groups of axes (default: a comparison)")
    add_axes(command)
    add_measure(command, "any", "launches")
    add_files(command)


def add_options(command: argparse.ArgumentParser) -> None:
    add_sweep(command)
    command.add_argument("--on", metavar="GPU", help="predict latencies for a data sheet's GPU: V100, A100, H100, …")
    command.add_argument("--fit", metavar="BYTES", help="the largest batch of each case that fits: 24GiB, say")
    add_json(command)


def run(arguments: argparse.Namespace) -> int:
    if arguments.on is not None and arguments.devices is None:
        arguments.devices = "cuda:0"  # and with it the dtype that is usual there
    limit = None if arguments.fit is None else BYTES.parse(arguments.fit, "--fit")
    if limit is not None and arguments.batches:
        raise UsageError("got --batches with --fit, which looks for the largest one, expected one of them")
    sweep = read_sweep(arguments)
    with session(sweep.measure, models, sweep.given) as asked:
        planned, machine = planned_cases(sweep.groups, asked)
        if limit is not None:
            return _fitted(fitting.fit(planned, limit, asked.count), limit, arguments.json)
        expected = outlook.predict(planned, sweep.measure, asked.count, asked.formulas, machine)
        on = None if arguments.on is None else prediction.of_cases(planned, arguments.on, asked.operators)
    if arguments.json:
        print_json(expected.to_json() if on is None else _with_predictions(expected, *on))
        return 0
    print(outlook.as_text(expected))
    if on is not None:
        print(prediction.as_text(on[0], dict(zip((entry.case for entry in planned), on[1], strict=True))))
    return 0


def _fitted(fits: list[fitting.Fit], limit: int, json: bool) -> int:
    if json:
        print_json({"fit_bytes": limit, "cases": [one.to_json() for one in fits]})
    else:
        print(fitting.as_text(fits, limit))
    return 0


def _with_predictions(plan: outlook.Plan, device: str, predictions: list[prediction.Prediction]) -> dict[str, object]:
    rows = zip(plan.cases, predictions, strict=True)
    return {
        **plan.to_json(),
        "cases": [{**row.to_json(), "prediction": asdict(one)} for row, one in rows],
        "predicted_on": {"device": device, "measured": False, "kernel_s": prediction.KERNEL_S},
    }


EXAMPLES = ("plan mine.toml", "plan --models swin_t,dwnet_t --batches 1,64 --on A100")
COMMAND = Command("what a sweep would run; runs nothing", add_options, run, EXAMPLES)
