"""`mixprof doctor`: what works here."""

import argparse

from mixprof import models
from mixprof.cli.command import Command, add_json, print_json
from mixprof.plan.settings import Measure
from mixprof.run import doctor
from mixprof.run.session import session


def run(arguments: argparse.Namespace) -> int:
    with session(Measure(), models) as asked:
        examined = doctor.examine(asked.machine())
    print_json(examined.to_json()) if arguments.json else print(doctor.as_text(examined))
    return 0


COMMAND = Command(
    "what works on this machine, and what to install for the rest", add_json, run, ("doctor", "doctor --json")
)
