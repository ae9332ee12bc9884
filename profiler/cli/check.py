"""`mixprof check` and `mixprof baseline`: a run against stored ones."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from mixprof.cli import gate_options
from mixprof.cli.command import Command, add_json
from mixprof.cli.runs import copies
from mixprof.data import calibrations, run_folder
from mixprof.data.errors import UsageError
from mixprof.data.histories import History, content_hash, is_url
from mixprof.reports.gate import baseline, stored
from mixprof.reports.gate.baseline import Baseline
from mixprof.reports.gate.check import check
from mixprof.reports.gate.comparable import compare, declared
from mixprof.reports.gate.outcome import Outcome
from mixprof.reports.gate.policy import refuse_unused_patterns
from mixprof.reports.gate.stored import Stored

MOST_RUNS = 200  # of a history that are read, the newest


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder", metavar="RUN", help="a run folder or its URL")
    command.add_argument("--against", required=True, metavar="BASELINE", help="run folder, baseline file, or history")
    command.add_argument("--add", action="store_true", help="add the run to the history afterwards")
    command.add_argument("--under-test", metavar="A,B", help="software whose versions may differ: torch, cuda, …")
    command.add_argument("--exact-only", action="store_true", help="counts alone: no time is judged")
    gate_options.add_options(command, retry=False)
    add_json(command)


def run(arguments: argparse.Namespace) -> int:
    """Judge RUN; the exit code of the policy."""
    with copies([arguments.folder]) as (folder,):
        arguments.folder = str(folder)
        return _judge(arguments)


def _judge(arguments: argparse.Namespace) -> int:
    policy = gate_options.policy_of(arguments)
    head = stored.of_run(Path(arguments.folder))
    history = history_of(arguments.against)
    if arguments.add and history is None:
        raise UsageError(f"got --add with '{arguments.against}', which is no history, expected a folder or URL of one")
    under_test = arguments.under_test
    base = read_baseline(arguments.against, history, head, under_test, begin=arguments.add)
    if base is None:
        outcome = Outcome("check", arguments.against, arguments.folder, [], notes=["the history begins with this run"])
    else:
        names = declared(under_test, [*base.newest.versions, *head.versions])
        refuse_unused_patterns(policy, [key.case.label() for key in base.newest.cases])
        outcome = check(arguments.folder, head, base, names, policy.thresholds, arguments.exact_only)
    times = stored.times_of_run(Path(arguments.folder))
    cases = [replace(judged, times=(not judged.time and times.get(judged.case)) or {}) for judged in outcome.cases]
    outcome = replace(outcome, cases=cases, notes=[*outcome.notes, calibrations.in_words(dict(head.testbed))])
    code = gate_options.conclude(outcome, policy, arguments, None)
    if arguments.add and history is not None:
        path, is_new = history.add(head.key, head.time, head.to_json())
        print(f"mixprof: {'added as' if is_new else 'already there:'} {path}", file=sys.stderr)
    return code


def history_of(against: str) -> History | None:
    """The history that a name stands for; None for a run folder or a file. A history may not exist yet."""
    path = Path(against)
    is_other = not is_url(against) and (path.is_file() or (path / run_folder.MANIFEST).exists())
    return None if is_other else History(against)


def read_baseline(
    against: str, history: History | None, head: Stored, under_test: str | None, begin: bool
) -> Baseline | None:
    """What RUN is compared with; None for a history that begins with it."""
    if history is not None:
        return of_history(history, head, under_test, begin)
    if Path(against).is_file():
        return baseline.read(Path(against))
    return baseline.of_runs(against, [stored.of_run(Path(against))])


def of_history(history: History, head: Stored, under_test: str | None, begin: bool) -> Baseline | None:
    """The runs of a history that compare with a run, itself left out: by testbed key, then by versions.

    Where none compares, the newest one stands for them: the outcome says what differs.
    """
    itself = content_hash(head.to_json())
    files = [file for file in history.files() if file.hash != itself]
    if not files:
        if begin:
            return None
        raise UsageError(
            f"got '{history.url}', which is empty or not there, expected a run folder, a baseline file or a history "
            "with runs: --add begins one with this run"
        )
    own = [file for file in files if file.key == head.key]
    if not own:
        machines = len({file.key for file in files})
        note = f"{len(files)} stored runs of {machines} other machines or settings, none of testbed {head.key}"
        return baseline.of_runs(history.url, [stored.of_file(history, files[-1])], [note])
    runs = [stored.of_file(history, file) for file in own[-MOST_RUNS:]]
    names = declared(under_test, [name for run in (*runs, head) for name in run.versions])
    alike = [run for run in runs if not compare(run, head, names).different]
    left = len(runs) - len(alike)
    notes = [f"{left} stored runs of other versions left out"] if left and alike else []
    return baseline.of_runs(history.url, alike or runs[-1:], notes)


EXAMPLES = ("check runs/mine --against mixprof-baseline.txt", "check runs/mine --against history/ --add")
COMMAND = Command("a run against stored ones", add_options, run, EXAMPLES)
