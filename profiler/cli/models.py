"""`mixprof models`: the registered names."""

import argparse

from mixprof import models
from mixprof.cli.command import Command, add_json, print_json
from mixprof.plan.axes import expand
from mixprof.plan.settings import SIDES, Axes, Measure
from mixprof.run.session import session


def run(arguments: argparse.Namespace) -> int:
    rows = []
    with session(Measure(), models) as asked:
        for name in models.MODELS:
            source = asked.describe(name)
            case = expand([Axes(models=(name,))], {name: source}.__getitem__, ["cpu"])[0].case
            rows.append({"model": name, "kind": source.kind, "params": asked.count(case, source).params})
    if arguments.json:
        print_json(rows)
        return 0
    for kind, note in (("mixer", "window 7, 96 channels"), ("network", "window 7")):
        print(f"{kind}s (at {SIDES[kind]}x{SIDES[kind]}, {note})")
        for row in rows:
            if row["kind"] == kind:
                print(f"  {row['model']:32} {row['params'] or 0:>12,} parameters")
    return 0


COMMAND = Command("list mixers and networks, with parameters", add_json, run, ("models", "models --json"))
