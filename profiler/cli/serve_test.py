"""`mixprof serve-test`: latencies of a lowered model as a service under load."""

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mixprof import models
from mixprof.cli.command import Command, add_files, add_json, add_setting, given, print_json, read_files, spelled
from mixprof.data.files import write_whole
from mixprof.data.json import to_builtins
from mixprof.data.served import Served
from mixprof.plan.load import SETTINGS, read
from mixprof.plan.settings import AXES
from mixprof.reports.text import serving as text
from mixprof.run import serving
from mixprof.run.sweep import Sweep


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("models", nargs="+", metavar="MODEL", help=AXES["models"].help)
    for name, setting in SETTINGS.items():
        if name != "models":
            add_setting(command, setting, "A,B" if name in (*AXES, "scenario") else name[0].upper())
    add_files(command)
    command.add_argument("--out", metavar="FILE.json", help="write what --json prints there, too")
    add_json(command)


def run(arguments: argparse.Namespace) -> int:
    groups, measure, load = read({**given(arguments, SETTINGS), "models": ",".join(arguments.models)}, spelled)
    asked = Sweep(groups, measure, read_files(arguments))
    served = serving.serve(asked, load, models, partial(print, file=sys.stderr))
    values = {"served": to_builtins(served)}
    if arguments.out:
        write_whole(Path(arguments.out), json.dumps(values, indent=1, allow_nan=False).encode() + b"\n")
    print_json(values) if arguments.json else print(_text(served))
    return 0


def _text(served: Sequence[Served]) -> str:
    by_case: dict[str, list[Served]] = {}
    for each in served:
        by_case.setdefault(json.dumps([each.case, each.scenario]), []).append(each)
    rates = [(of[0], *serving.keeping(of)) for of in by_case.values() if of[0].limit_ms is not None]
    return text.tables(served, rates)


EXAMPLES = (
    "serve-test swin_t --lowerings onnxruntime,openvino --scenario single,server --rate 5 --limit-ms 300",
    "serve-test depthwise_conv --lowerings eager,compile --scenario churn --resolutions 14,28,56",
)
COMMAND = Command("a lowered model as a service: percentiles under load, the largest rate", add_options, run, EXAMPLES)
