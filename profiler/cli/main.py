"""The command line: reads arguments, composes models, profiler and reports, maps failures to exit codes."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from mixprof import lowerings, models
from mixprof.cli import ab, accept, bisect, calibrate, check
from mixprof.data import cache, run_folder
from mixprof.data.errors import NotTrusted, UsageError
from mixprof.data.types import Case, Record
from mixprof.plan import axes as sweeps
from mixprof.plan import prediction
from mixprof.plan.files import Given, parse_shapes
from mixprof.run import agreement, crosscheck, doctor, outlook
from mixprof.run import peaks as machine_peaks
from mixprof.run.executors import local
from mixprof.run.progress import Lines
from mixprof.run.session import manifest_of, planned_cases, refuse_other, refuse_unused, session
from mixprof.symbolic import words

DEFAULT_SWEEP = Path(sweeps.__file__).with_name("default_sweep.toml")


SETTINGS = {
    "launches": "worker processes for each case",
    "seconds": "of sampling in one launch's steady state, at most (default: 10)",
    "timeout": "seconds for one launch, building included",
    "seed": "of the order of cases",
    "threads": "of the CPU, for every lowering",
    "allocator": "pinned or system",
    "max-lost-cpu": "share of a launch's CPU time that others may take (default: 0.1)",
    "max-memory": "bound of one case on the CPU, like 2GiB",
}


OF_LAUNCHES = ("launches", "seconds", "max-memory")  # a gate's rounds have no use for them


class Parser(argparse.ArgumentParser):
    """One line for an error, exit code 2, no abbreviated options."""

    def __init__(self, **settings: Any):
        super().__init__(**settings, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; `{self.prog} --help` lists what is expected")


def parser() -> Parser:
    top = Parser(prog="mixprof", description="What a spatial mixer really costs, measured on this machine.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, help: str, run: Callable[[argparse.Namespace], int], json_too: bool = False) -> Parser:
        command: Parser = commands.add_parser(name, help=help, description=help)
        command.set_defaults(run=run)
        if json_too:
            command.add_argument("--json", action="store_true", help="print JSON and nothing else")
        return command

    add("models", "list mixers and networks, with parameters", run_models, json_too=True)
    add("doctor", "what works on this machine, and what to install for the rest", run_doctor, json_too=True)
    counting = add("count", "parameters and MACs of one forward; runs nothing on a device", run_count, json_too=True)
    counting.add_argument("model", metavar="MODEL")
    for name, help in (("resolution", "224 or 800x1333"), ("batch", "images"), ("window", "side of the window")):
        counting.add_argument(f"--{name}", help=help, metavar=name[0].upper())
    counting.add_argument("--channels", help="of a mixer", metavar="C")
    counting.add_argument(
        "--symbolic", action="store_true", help="exact formulas in batch, resolution, window, channels"
    )
    timing = add("time", "measure now, print one table, leave nothing behind", run_time)
    timing.add_argument("models", nargs="+", metavar="MODEL")
    planning = add("plan", "what a sweep would run; runs nothing", run_plan, json_too=True)
    planning.add_argument("--on", metavar="GPU", help="predict latencies for a data sheet's GPU: V100, A100, H100, …")
    sweeping = add("sweep", "run a sweep into a run folder", run_sweep)
    comparing = add("ab", "two revisions, environments or settings, interleaved in one job", run_ab)
    ab.add_options(comparing)
    bisecting = add("bisect", "the commit at which one case regressed, through git's own bisect", bisect.run_bisect)
    bisect.add_options(bisecting)
    for command in (comparing, bisecting):
        command.add_argument("--models", metavar="A,B", help="names, or package.module:factory")
    accept.add_options(add("accept", "let a case regress until a day, in a file to commit", accept.run))
    calibrating = add("calibrate", "what a gate can tell on this machine: the same code against itself", run_calibrate)
    calibrate.add_options(calibrating)
    checking_runs = add("check", "a run against stored ones", check.run_check, json_too=True)
    check.add_check_options(checking_runs)
    check.add_baseline_options(add("baseline", "a small text baseline of a run, to commit", check.run_baseline))
    for command in (planning, sweeping):
        command.add_argument("file", nargs="?", metavar="SWEEP.toml", help="groups of axes; default: a comparison")
        command.add_argument("--models", metavar="A,B", help="names, package.module:factory, net.onnx or net.plan")
    gates = (comparing, bisecting, calibrating)
    for command in (timing, planning, sweeping, *gates):
        for axis in sweeps.PARSERS:
            if axis != "models":
                command.add_argument(f"--{axis}", metavar="A,B")
        if command not in gates:
            command.add_argument("--quick", action="store_true", help="one short launch a case")
            command.add_argument("--publication", action="store_true", help="eight launches, narrow intervals")
            command.add_argument("--energy", action="store_true", help="joules per image, some seconds more a launch")
        for name, help in SETTINGS.items():
            if command not in gates or name not in OF_LAUNCHES:
                command.add_argument(f"--{name}", metavar=name[0].upper(), help=help)
    for command in (counting, timing, planning, sweeping):
        command.add_argument("--shape", action="append", metavar="INPUT:1x3x224x224", help="of an input of a file")
        command.add_argument("--inputs", metavar="FILE.npz", help="what a file is fed with; default: random")
    sweeping.add_argument("--out", metavar="RUN", help="a new folder (default: runs/<time>)")
    sweeping.add_argument("--resume", action="store_true", help="go on with the run in --out")
    sweeping.add_argument(
        "--layers", action="store_true", help="one more launch per engine or eager case: where its time goes, by role"
    )
    sweeping.add_argument(
        "--refine", choices=("crossover",), help="then add cases between those where two models swap places"
    )
    sweeping.add_argument("--strict", action="store_true", help="exit code 4 unless every case is ok")
    checking = add("crosscheck", "a run's TensorRT figures beside trtexec's, in turns", run_crosscheck, json_too=True)
    checking.add_argument("folder", metavar="RUN")
    checking.add_argument(
        "--with",
        dest="programs",
        action="append",
        default=[],
        metavar="PROGRAM",
        help="trtexec or tensorrt_rtx, or a path; twice for both (default: what PATH has)",
    )
    checking.add_argument("--blocks", default=str(agreement.LEAST_BLOCKS), metavar="N", help="A B B A, 5 or more")
    checking.add_argument("--seed", default="0", metavar="S", help="of who starts")
    reporting = add("report", "figures, tables and data of one or more runs", run_report)
    reporting.add_argument("runs", nargs="+", metavar="RUN")
    reporting.add_argument("--out", required=True, metavar="DIR")
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit code of DESIGN's contract."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        arguments = parser().parse_args(argv)
        run: Callable[[argparse.Namespace], int] = arguments.run
        return run(arguments)
    except UsageError as error:
        return _fail(2, str(error))
    except NotTrusted as error:
        return _fail(4, str(error))
    except KeyboardInterrupt:
        return _fail(130, "interrupted")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader of our output has left
        return 0
    except OSError as error:
        return _fail(74, f"{error.filename or 'a file'} could not be written or read: {error.strerror or error}")
    except Exception as error:
        traceback.print_exc()
        return _fail(70, f"internal error: {type(error).__name__}: {error}; please report it with the lines above")


def _fail(code: int, message: str) -> int:
    print(f"mixprof: {' '.join(message.split())}", file=sys.stderr)
    return code


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=1))


def read_axes(arguments: argparse.Namespace) -> tuple[list[sweeps.Axes], sweeps.Measure]:
    """Groups and settings from a sweep file, the command line, or both; the command line wins."""
    given = {name: getattr(arguments, name) for name in sweeps.PARSERS if getattr(arguments, name, None) is not None}
    overrides = {name: sweeps.parse_axis(name, value, f"--{name}") for name, value in given.items()}
    file = getattr(arguments, "file", None)
    if file is not None or not overrides:
        groups, measure = sweeps.read_sweep(Path(file) if file else DEFAULT_SWEEP, overrides)
    else:
        groups, measure = [sweeps.Axes(**overrides)], sweeps.Measure()
    changed: dict[str, Any] = {}
    for name, parse in sweeps.MEASURE_PARSERS.items():
        value = getattr(arguments, name, None)
        if value not in (None, False):
            try:
                changed[name] = parse(value)
            except ValueError as error:
                raise UsageError(f"--{name.replace('_', '-')}: got {value!r}, expected {error}") from None
    if changed.get("quick") or changed.get("publication"):
        measure = replace(measure, launches=None, seconds=None, quick=False, publication=False)
    measure = replace(measure, **changed)
    if measure.quick and measure.publication:
        raise UsageError("got --quick and --publication, expected at most one of them")
    return groups, measure


def _given(arguments: argparse.Namespace) -> Given:
    return Given(parse_shapes(arguments.shape or ()), arguments.inputs)


def run_models(arguments: argparse.Namespace) -> int:
    rows = []
    with session(sweeps.Measure(), models) as asked:
        for name in models.MODELS:
            source = asked.describe(name)
            counts = asked.count(_default_case(name, source), source)
            rows.append({"model": name, "kind": source.kind, "params": counts.get("params")})
    if arguments.json:
        _print_json(rows)
        return 0
    for kind, note in (("mixer", "at 56x56, window 7, 96 channels"), ("network", "at 224x224, window 7")):
        print(f"{kind}s ({note})")
        for row in rows:
            if row["kind"] == kind:
                print(f"  {row['model']:32} {row['params'] or 0:>12,} parameters")
    return 0


def _default_case(name: str, source: sweeps.Source) -> Case:
    return next(iter(sweeps.expand([sweeps.Axes(models=(name,))], lambda _: source, ["cpu"]))).case


def run_doctor(arguments: argparse.Namespace) -> int:
    with session(sweeps.Measure(), models) as asked:
        found = doctor.examine(asked.environment())
    _print_json(found) if arguments.json else print(doctor.as_text(found))
    return 0


def run_count(arguments: argparse.Namespace) -> int:
    axes = {"resolution": "resolutions", "batch": "batches", "window": "windows", "channels": "channels"}
    given = {axis: getattr(arguments, name) for name, axis in axes.items() if getattr(arguments, name) is not None}
    parsed = {axis: sweeps.parse_axis(axis, value, f"--{axis}") for axis, value in given.items()}
    for axis, values in parsed.items():
        if len(values) > 1:
            raise UsageError(f"--{axis}: got {len(values)} values, expected one: `mixprof plan` counts many cases")
    if arguments.symbolic:
        return _count_symbolically(arguments, [f"--{name}" for name, axis in axes.items() if axis in given])
    with session(sweeps.Measure(), models, _given(arguments)) as asked:
        groups = [sweeps.Axes(models=(arguments.model,), devices=("cpu",), **parsed)]
        entry = sweeps.expand(groups, asked.describe, ["cpu"])[0]
        refuse_unused(asked.given, [entry])
        counts = asked.count(entry.case, entry.source)
    if counts["status"] != "ok":
        raise UsageError(counts["reason"])
    names = ("params", "macs", "flops", "macs_by_op", "min_bytes", "uncounted_ops")
    found = {"model": arguments.model, **{name: counts.get(name) for name in names}}
    if arguments.json:
        _print_json(found)
        return 0
    at_least = "at least " if found["uncounted_ops"] else ""
    print(f"{entry.case.label()}: {found['params']:,} parameters, {at_least}{found['macs']:,} MACs")
    if found["min_bytes"] is not None:
        print(f"  {'minimal bytes moved, all else fused':48} {found['min_bytes']:>18,}")
    for name, macs in sorted(found["macs_by_op"].items(), key=lambda item: -item[1]):
        print(f"  {name:48} {macs:>18,}")
    if at_least:
        print(f"  not counted: {', '.join(found['uncounted_ops'])}")
    return 0


def _count_symbolically(arguments: argparse.Namespace, given: list[str]) -> int:
    name = arguments.model
    if given:
        raise UsageError(f"got {given[0]} with --symbolic, expected it alone: formulas hold for all sizes")
    with session(sweeps.Measure(), models, _given(arguments)) as asked:
        source = asked.describe(name)
        if source.artifact is not None:
            raise UsageError(
                f"got '{name}' with --symbolic, expected a model that is built for each size: a file has its own; "
                "count it without --symbolic"
            )
        found, reason = asked.formulas(source)
    if found is None:
        raise UsageError(f"{name}: {reason}; count single cases without --symbolic")
    _print_json(words.as_json(name, found)) if arguments.json else print(words.as_text(name, found))
    return 0


def run_plan(arguments: argparse.Namespace) -> int:
    if arguments.on is not None and arguments.devices is None:
        arguments.devices = "cuda:0"  # and with it the dtype that is usual there
    groups, measure = read_axes(arguments)
    with session(measure, models, _given(arguments)) as asked:
        planned, environment = planned_cases(groups, asked)
        found = outlook.predict(planned, measure, asked.count, asked.formulas, environment)
        if arguments.on is not None:
            prediction.add_to_plan(found, planned, arguments.on, asked.operators)
    if arguments.json:
        _print_json(found)
        return 0
    print(outlook.as_text(found))
    if arguments.on is not None:
        print(prediction.as_text(found))
    return 0


def run_time(arguments: argparse.Namespace) -> int:
    from mixprof.reports.text import summary

    arguments.models = ",".join(arguments.models)
    groups, measure = read_axes(arguments)
    with session(measure, models, _given(arguments)) as asked:
        planned, environment = planned_cases(groups, asked)
    with tempfile.TemporaryDirectory(prefix="mixprof-time-") as folder:
        run = Path(folder) / "run"
        run.mkdir()
        run_folder.write_manifest(run, manifest_of(planned, measure, environment))
        stopped = _execute(planned, run, measure)
        print(summary.short(run))
    return stopped


def run_sweep(arguments: argparse.Namespace) -> int:
    groups, measure = read_axes(arguments)
    if arguments.resume and arguments.out is None:
        raise UsageError("got --resume without --out, expected --out RUN, the run to go on with")
    run = Path(arguments.out or time.strftime("runs/%Y%m%d-%H%M%S"))
    blank = run_folder.is_blank(run)
    if run.exists() and not arguments.resume and not blank:
        raise UsageError(f"got '{run}', which exists, expected a new folder, or --resume to go on with it")
    stored = run_folder.read_manifest(run) if arguments.resume and not blank else None
    with session(measure, models, _given(arguments)) as asked:
        planned, environment = planned_cases(groups, asked)
        peaks = [] if (run / run_folder.PEAKS).exists() else machine_peaks.of_cases(planned, asked, environment)
    manifest = manifest_of(planned, measure, environment)
    if stored is not None:
        refuse_other(run, stored, manifest)
    local.check_cache(planned)
    run.mkdir(parents=True, exist_ok=True)
    with run_folder.lock(run):
        if stored is None and (run / run_folder.MANIFEST).exists():
            raise UsageError(
                f"got '{run}', which another sweep has begun since, expected a new folder: use another --out"
            )
        if stored is None:
            run_folder.write_manifest(run, manifest)
        if peaks:
            run_folder.write_peaks(run, peaks)
        for message in run_folder.set_torn_lines_aside(run):
            print(f"mixprof: {message}", file=sys.stderr)
        stopped = _execute(planned, run, measure)
        if arguments.refine:
            stopped = _refine(planned, run, measure, stopped)
        records = run_folder.read_records(run)
    cases = {entry.case for entry in planned} | {record.case for record in records}
    _say_outcome(run, len(cases), [record.status for record in records])
    _say_engines(records)
    if stopped:
        return stopped
    return 4 if arguments.strict and any(record.status != "ok" for record in records) else 0


def _refine(planned: list[sweeps.Planned], run: Path, measure: sweeps.Measure, stopped: int) -> int:
    """Add cases between those where two models swap places, until there is nothing to add; they join `planned`.

    A halving is a sweep of its own: the launches of a case that is added are closer in time than those of the grid.
    """
    from mixprof.reports.answers.refine import next_cases
    from mixprof.reports.frame import load

    sources = {entry.case.model: entry.source for entry in planned}
    while not stopped and (cases := next_cases(load(run))):
        print(f"mixprof: {len(cases)} more cases between those where two models swap places", file=sys.stderr)
        added = [sweeps.plan_case(case, sources[case.model]) for case in cases]
        planned += added
        stopped = _execute(added, run, measure)
    return stopped


def _execute(planned: list[sweeps.Planned], run: Path, measure: sweeps.Measure) -> int:
    """Run the cases. An interrupt lets the running launch end, a second one or SIGTERM does not.

    The exit code that an interrupt asks for, 0 without one.
    """
    asked_to_stop = 0

    def on_signal(number: int, frame: object) -> None:
        nonlocal asked_to_stop
        if asked_to_stop:
            raise KeyboardInterrupt
        asked_to_stop = 130
        print("mixprof: stopping when this launch ends; interrupt again to stop now", file=sys.stderr)

    before = signal.signal(signal.SIGINT, on_signal)
    try:
        profiled = sum(lowerings.layers_of(each.case.lowering) is not None for each in planned) if measure.layers else 0
        progress = Lines(sys.stderr, len(planned) * measure.rounds + profiled)
        local.execute(planned, run, measure, progress, stop=lambda: bool(asked_to_stop))
    finally:
        signal.signal(signal.SIGINT, before)
    return asked_to_stop


def _say_outcome(run: Path, cases: int, statuses: list[str]) -> None:
    counts = ", ".join(f"{statuses.count(each)} {each}" for each in dict.fromkeys(sorted(statuses)))
    left = cases - len(statuses)
    more = f", {left} not yet run: mixprof sweep … --out {run} --resume" if left else ""
    print(f"{run}: {counts or 'no case'}{more}")
    if not left:
        print(f"next: mixprof report {run} --out {run}/report")


def _say_engines(records: list[Record]) -> None:
    """How many engines a run built and how many it found built, and what was wrong with those that it kept."""
    engines = [record for record in records if lowerings.parse(record.case.lowering)[0].engine and record.proof]
    if engines:
        cached = sum(record.build_cached is True for record in engines)
        print(f"engines: {len(engines) - cached} built, {cached} found in {cache.folder()}")
    for record in engines:
        if warning := (record.proof or {}).get("warning"):
            print(f"mixprof: warning: {warning}", file=sys.stderr)


def run_crosscheck(arguments: argparse.Namespace) -> int:
    from mixprof.reports.text.markdown import plain_table

    run = Path(arguments.folder)
    run_folder.read_manifest(run)
    tools = crosscheck.programs(arguments.programs)
    counts = {}
    for name in ("blocks", "seed"):
        given = getattr(arguments, name)
        if not given.isdecimal() or (name == "blocks" and int(given) < agreement.LEAST_BLOCKS):
            expected = f"a whole number from {agreement.LEAST_BLOCKS if name == 'blocks' else 0} up"
            raise UsageError(f"--{name}: got '{given}', expected {expected}")
        counts[name] = int(given)
    with run_folder.lock(run):
        for message in run_folder.set_torn_lines_aside(run):
            print(f"mixprof: {message}", file=sys.stderr)
        found = crosscheck.check(run, tools, models, **counts, say=lambda line: print(line, file=sys.stderr))
        run_folder.write_crosscheck(run, found)
    _print_json(found) if arguments.json else print(plain_table(agreement.rows(found)))
    print(f"{run}: {agreement.summary(found)}", file=sys.stderr if arguments.json else sys.stdout)
    return agreement.exit_code(found)


def run_ab(arguments: argparse.Namespace) -> int:
    groups, measure = read_axes(arguments)
    return ab.run_ab(arguments, groups, measure)


def run_calibrate(arguments: argparse.Namespace) -> int:
    if not arguments.models:
        arguments.models = ",".join(calibrate.DEFAULT_MODELS)
    groups, measure = read_axes(arguments)
    return calibrate.run_calibrate(arguments, groups, measure)


def run_report(arguments: argparse.Namespace) -> int:
    from mixprof.reports.export import write_report

    runs = [Path(run) for run in arguments.runs]
    for run in runs:
        run_folder.read_manifest(run)
        if os.access(run, os.W_OK):
            with run_folder.lock(run):  # lines of a live sweep are not torn, they are being written
                for message in run_folder.set_torn_lines_aside(run):
                    print(f"mixprof: {message}", file=sys.stderr)
    out = Path(arguments.out)
    if out.exists() and not out.is_dir():
        raise UsageError(f"got --out '{out}', which is a file, expected a folder")
    for path in write_report(runs, out):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
