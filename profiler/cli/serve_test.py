"""`mixprof serve-test`: latencies of a lowered model as a service under load."""

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mixprof import models
from mixprof.cli.command import Command, add_axes, add_files, add_json, add_measure, print_json, read_sweep
from mixprof.data.errors import UsageError
from mixprof.data.files import write_whole
from mixprof.data.json import to_builtins
from mixprof.data.served import Served
from mixprof.plan.settings import AXES, MEASURE
from mixprof.plan.values import number, whole_number
from mixprof.reports.text import serving as text
from mixprof.run import serving
from mixprof.run.serving import SCENARIOS, Load

POSITIVE = number("a number above 0", lambda value: 0 < value < 1e9)
WAIT = number("milliseconds from 0 up", lambda value: 0 <= value < 1e6)
SECONDS, QUICK_SECONDS = "10", "1"


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("models", nargs="+", metavar="MODEL", help=AXES["models"].help)
    add_axes(command, but=("models", "modes", "batches"))
    scenarios = f"of {', '.join(SCENARIOS)}; churn: resolutions drawn from --resolutions in one process"
    command.add_argument("--scenario", default="server", metavar="S,S", help=scenarios)
    command.add_argument("--rate", metavar="QPS", help="of server: queries a second, Poisson arrivals")
    limit = "of server: the p99 under which the largest rate is searched for"
    command.add_argument("--limit-ms", metavar="MS", help=limit)
    command.add_argument("--max-batch", default="1", metavar="N", help="queries in one forward, at most")
    waits = "that a query waits for others to fill its batch, at most"
    command.add_argument("--max-wait-ms", default="0", metavar="MS", help=waits)
    longest = f"of each load; up to five times as long for a p99 (default: {SECONDS}; {QUICK_SECONDS} with --quick)"
    command.add_argument("--seconds", metavar="S", help=longest)
    command.add_argument("--quick", action="store_true", help="short loads")
    command.add_argument("--launches", default="1", metavar="L", help="processes that are loaded, one after another")
    command.add_argument("--calibration", metavar="C", help=MEASURE["calibration"].help)
    add_measure(command, "any")
    add_files(command)
    command.add_argument("--out", metavar="FILE.json", help="write what --json prints there, too")
    add_json(command)


def run(arguments: argparse.Namespace) -> int:
    load = _load(arguments)
    arguments.models = ",".join(arguments.models)
    served = serving.serve(read_sweep(arguments), load, models, partial(print, file=sys.stderr))
    values = {"served": to_builtins(served)}
    if arguments.out:
        write_whole(Path(arguments.out), json.dumps(values, indent=1, allow_nan=False).encode() + b"\n")
    print_json(values) if arguments.json else print(_text(served))
    return 0


def _load(arguments: argparse.Namespace) -> Load:
    names = tuple(arguments.scenario.split(","))
    if unknown := [name for name in names if name not in SCENARIOS] or len(set(names)) < len(names):
        got = arguments.scenario if unknown is True else unknown[0]
        raise UsageError(f"--scenario: got '{got}', expected one or more of {', '.join(SCENARIOS)}, each once")
    values = {"--rate": arguments.rate, "--limit-ms": arguments.limit_ms}
    rate, limit_ms = (None if value is None else POSITIVE.parse(value, name) for name, value in values.items())
    seconds = arguments.seconds or (QUICK_SECONDS if arguments.quick else SECONDS)
    load = Load(
        names,
        rate,
        limit_ms,
        whole_number(1).parse(arguments.max_batch, "--max-batch"),
        WAIT.parse(arguments.max_wait_ms, "--max-wait-ms"),
        POSITIVE.parse(seconds, "--seconds"),
    )
    load.refuse()
    return load


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
