"""What the gate's commands share: options of policy and exporters, and what they do with an outcome."""

import argparse
import datetime
import json
import sys
from pathlib import Path

from mixprof.cli.command import add_list
from mixprof.data.errors import UsageError
from mixprof.reports.gate import limits, thresholds, waivers
from mixprof.reports.gate.exporters import EXPORTERS, as_annotations, write
from mixprof.reports.gate.outcome import Outcome, Policy, exit_code, in_words
from mixprof.reports.gate.policy import apply
from mixprof.reports.gate.tables import as_text

FILES = {  # option -> what it writes
    "junit": "JUnit XML",
    "markdown": "Markdown; appended where the file is $GITHUB_STEP_SUMMARY",
    "bencher": "Bencher Metric Format, JSON",
    "benchmark-json": "for github-action-benchmark, its customSmallerIsBetter",
}


def add_options(command: argparse.ArgumentParser, retry: bool) -> None:
    """Options of policy and exporters. retry: whether the command can measure more."""
    add_list(command, "--threshold", "T", "share like 0.02 (the default), or 'PATTERN=0.05'")
    add_list(command, "--limit", "L", "of HEAD's time: 'host_p99<=8ms', 'PATTERN:latency<=2ms'")
    choices = ("pass", "fail", "retry") if retry else ("pass", "fail")
    for name in ("inconclusive", "incomparable"):
        command.add_argument(f"--on-{name}", choices=choices, default="fail", help="what it comes to (default: fail)")
    command.add_argument("--waivers", metavar="FILE", help=f"accepted regressions (default: {waivers.DEFAULT}, if any)")
    for name, help in FILES.items():
        command.add_argument(f"--{name}", metavar="FILE", help=help)
    command.add_argument("--annotations", action="store_true", help="print annotations of GitHub Actions")


def add_setup(command: argparse.ArgumentParser, prepare: str) -> None:
    """What is done to both sides before they are asked for anything. prepare: the help of that option."""
    command.add_argument("--prepare", metavar="COMMAND", help=prepare)
    folder = "folder of each side's packages, from the current one (default: src, where it holds them)"
    add_list(command, "--pythonpath", "DIR", folder)


def refuse_no_model(arguments: argparse.Namespace) -> None:
    if not arguments.models:
        raise UsageError("got no model, expected --models; `mixprof models` lists them")


def policy_of(arguments: argparse.Namespace) -> Policy:
    """The policy that options and waivers ask for."""
    if "retry" in (arguments.on_inconclusive, arguments.on_incomparable) and arguments.budget is None:
        raise UsageError("got retry without --budget, expected the seconds that it may take: add --budget 300")
    if arguments.limit and arguments.exact_only:
        raise UsageError("got --limit with --exact-only, which measures no time, expected one of them")
    path = waivers.DEFAULT if arguments.waivers is None else Path(arguments.waivers)
    accepted = waivers.read(path) if arguments.waivers is not None or path.exists() else ()
    limited = thresholds.parse(arguments.threshold), limits.parse(arguments.limit)
    return Policy(arguments.on_inconclusive, arguments.on_incomparable, *limited, accepted)


def conclude(outcome: Outcome, policy: Policy, arguments: argparse.Namespace, stored: Path | None) -> int:
    """Store an outcome, print its verdicts, export it; the exit code of the policy. OSError after all was tried."""
    outcome = apply(outcome, policy, datetime.date.today())
    code = exit_code(outcome, policy)
    values = {**outcome.to_json(), "exit_code": code, "words": in_words(outcome, code)}
    if stored is not None:
        stored.parent.mkdir(parents=True, exist_ok=True)
        write(stored, json.dumps(values, indent=1) + "\n")
    print(json.dumps(values, indent=1) if arguments.json else f"{as_text(outcome)}\n{values['words']}")
    if arguments.annotations:
        # GitHub's runner reads both streams; with --json, standard output is JSON alone.
        print(as_annotations(outcome, policy), end="", flush=True, file=sys.stderr if arguments.json else sys.stdout)
    _export(outcome, policy, arguments)
    return code


def _export(outcome: Outcome, policy: Policy, arguments: argparse.Namespace) -> None:
    """Write every file that was asked for; the first error is raised when all have been tried."""
    errors = []
    for name, export in EXPORTERS.items():
        if path := getattr(arguments, name):
            try:
                write(Path(path), export(outcome, policy))
            except OSError as error:
                errors.append(error)
    if errors:
        sys.stdout.flush()  # the verdicts come before the error
        raise errors[0]
