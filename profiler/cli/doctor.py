"""`mixprof doctor`: what works here."""

import argparse

from mixprof import models
from mixprof.cli.command import Command, add_json, print_json
from mixprof.data.errors import NotTrusted
from mixprof.plan.settings import MEASURE, Measure
from mixprof.run import doctor
from mixprof.run.session import session


def run(arguments: argparse.Namespace) -> int:
    with session(Measure(), models) as asked:
        examined = doctor.examine(asked.machine())
    print_json(examined.to_json()) if arguments.json else print(doctor.as_text(examined), flush=True)
    if arguments.require_device and examined.no_cuda is not None:
        raise NotTrusted(f"--require-device: {examined.no_cuda}")
    return 0


def add_options(command: argparse.ArgumentParser) -> None:
    add_json(command)
    command.add_argument("--require-device", action="store_true", help=MEASURE["require_device"].help)


COMMAND = Command(
    "what works on this machine, and what to install for the rest",
    add_options,
    run,
    ("doctor", "doctor --require-device --json"),
)
