"""`mixprof ab` and what it takes: the composition of sides, rounds, verdicts and their exporters."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from mixprof import models
from mixprof.cli import gate_options
from mixprof.data import calibrations
from mixprof.data.errors import UsageError
from mixprof.data.run_folder import make_folder, testbed_key
from mixprof.gate import grid
from mixprof.gate.alone import only_one
from mixprof.gate.git import merge_base, resolve, uncommitted
from mixprof.gate.rounds import CANARY, Entry, Rounds
from mixprof.gate.sides import HERE, Side, is_revision, sides
from mixprof.machine.device import default_threads
from mixprof.plan.axes import Axes, Measure
from mixprof.reports.gate import times, verdicts
from mixprof.reports.gate.outcome import Judged, Outcome, Policy, counted
from mixprof.reports.gate.policy import refuse_unused_patterns, waived
from mixprof.reports.gate.verdicts import LOOKS, MORE_LOOKS
from mixprof.run.session import session

FORGIVEN = 2  # failures of BASE, with --on-incomparable retry


def add_options(command: argparse.ArgumentParser) -> None:
    """The options of `ab` beside axes and settings."""
    command.add_argument("base", nargs="?", default=HERE, metavar="BASE", help="revision, python:PATH, '.', merge-base")
    command.add_argument("head", nargs="?", default=HERE, metavar="HEAD", help="the same (default: '.', as it is)")
    command.add_argument(
        "--prepare", metavar="COMMAND", help="run in each revision's work tree, in an environment of its own"
    )
    for side in ("base", "head"):
        command.add_argument(
            f"--{side}-set", action="append", default=[], metavar="NAME=VALUE", help="a setting of this side"
        )
    command.add_argument("--exact-only", action="store_true", help="counts alone: no time is measured")
    command.add_argument("--budget", type=float, metavar="S", help="seconds for the whole job, at most")
    gate_options.add_options(command, retry=True)
    command.add_argument("--out", metavar="DIR", help="a new folder for samples and verdicts (default: runs/ab-<time>)")
    command.add_argument("--json", action="store_true", help="print JSON and nothing else")


def run_ab(arguments: argparse.Namespace, groups: list[Axes], measure: Measure) -> int:
    """Compare BASE with HEAD; the exit code of the policy."""
    _check(arguments)
    policy = gate_options.policy_of(arguments)
    out = Path(arguments.out or time.strftime("runs/ab-%Y%m%d-%H%M%S"))
    if out.exists():
        raise UsageError(f"got --out '{out}', which exists, expected a new folder")
    overrides = (
        grid.parse_overrides(arguments.base_set, "--base-set"),
        grid.parse_overrides(arguments.head_set, "--head-set"),
    )
    base = arguments.base
    if base == "merge-base":
        base = merge_base("HEAD" if arguments.head == HERE else arguments.head)
    if not (arguments.base_set or arguments.head_set):
        _refuse_one_commit(base, arguments)
    with contextlib.ExitStack() as held:
        if not arguments.exact_only:
            held.enter_context(only_one())
        scratch = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="mixprof-ab-")))
        both = held.enter_context(sides((base, arguments.head), scratch, arguments.prepare, overrides))
        outcome = _compare(both, groups, measure, arguments, out, policy)
    keep = arguments.out is not None or not arguments.exact_only
    return gate_options.conclude(outcome, policy, arguments, out / "ab.json" if keep else None)


def _check(arguments: argparse.Namespace) -> None:
    gate_options.refuse_no_model(arguments)
    if arguments.base == arguments.head and not (arguments.base_set or arguments.head_set):
        raise UsageError(f"got '{arguments.base}' on both sides and no --base-set or --head-set, expected a difference")
    if arguments.budget is not None and not arguments.budget > 0:
        raise UsageError(f"--budget: got {arguments.budget:g}, expected seconds above 0")
    both = (arguments.base, arguments.head)
    if arguments.prepare and not any(is_revision(each) for each in both):
        raise UsageError("got --prepare and no revision, expected one: it is run in the work tree of a revision")
    _say_what_is_compared(arguments.base, arguments.head)


def _refuse_one_commit(base: str, arguments: argparse.Namespace) -> None:
    """Two names of one commit compare nothing: `merge-base HEAD` on the default branch itself, say."""
    if is_revision(base) and is_revision(arguments.head) and (commit := resolve(base)) == resolve(arguments.head):
        names = f"'{arguments.base}' and '{arguments.head}', which are one commit ({commit[:10]})"
        raise UsageError(f"got {names}, expected two: name another BASE, such as HEAD~1")


def _say_what_is_compared(base: str, head: str) -> None:
    """Uncommitted changes are part of '.', and of nothing else."""
    if not (is_revision(base) or is_revision(head)) or not (changed := uncommitted()):
        return
    names = f"{', '.join(changed[:3])}{', …' if changed[3:] else ''}"
    files = f"uncommitted changes in {counted(len(changed), 'file')} ({names})"
    if HERE in (base, head):
        print(f"mixprof: '.' is compared as it is, with {files}", file=sys.stderr)
    else:
        print(f"mixprof: {files} are not compared: '{head}' is a commit, '.' would be the folder", file=sys.stderr)


def _compare(
    both: tuple[Side, Side],
    groups: list[Axes],
    measure: Measure,
    arguments: argparse.Namespace,
    folder: Path,
    policy: Policy,
) -> Outcome:
    start = time.monotonic()
    with contextlib.ExitStack() as held:
        asked = [
            held.enter_context(session(measure, models, python=side.python, path=side.path, folder=side.folder))
            for side in both
        ]
        planned = [grid.of_side(groups, side, each) for side, each in zip(both, asked, strict=True)]
        entries, missing, notes = grid.match(planned[0], planned[1])
        if not entries and not missing:
            reasons = [entry.reason for entry in planned[0].values() if entry.reason]
            raise UsageError(f"BASE can run no case: {reasons[0] if reasons else 'the axes are empty'}")
        refuse_unused_patterns(policy, [*(entry.key for entry in entries), *(each.name for each in missing)])
        counted = {entry.key: grid.exact(entry, asked[0], asked[1]) for entry in entries}
        testbed = asked[0].environment()["testbed"]
    lost = [Judged(each.name, "missing", reason=each.reason, case=each.case.to_json()) for each in missing]
    make_folder(folder, hidden=arguments.out is None)
    names = tuple(side.name if side.revision is None else f"{side.name} ({side.revision[:10]})" for side in both)
    if arguments.exact_only:
        cases = [_judge_exactly(entry, counted[entry.key]) for entry in entries]
        return Outcome("exact", names[0], names[1], [*cases, *lost], spent_s=time.monotonic() - start, notes=notes)
    rounds = Rounds(both[0], both[1], measure, folder, measure.threads or default_threads())
    judge = Job(entries, rounds, policy, arguments.budget, start)
    judge.run()
    differing = {key: each.differing for key, each in counted.items()}
    outcome = judge.outcome(names[0], names[1], differing, lost, [*notes, calibrations.said(testbed)])
    outcome = replace(outcome, testbed_key=testbed_key(testbed))
    (folder / "ab.json").write_text(json.dumps(outcome.to_json(), indent=1) + "\n")  # before any policy
    return outcome


def _judge_exactly(entry: Entry, counted: grid.Exact) -> Judged:
    """More parameters, MACs or memory is a regression, less an improvement; one of each is a regression."""
    case = entry.base.case.to_json()
    if counted.lost is not None:
        side, reason = counted.lost
        return Judged(entry.key, "missing" if side == "head" else "incomparable", reason=reason, case=case)
    differing = counted.differing
    worse = [name for name, (base, head) in differing.items() if head > base]
    said = "regressed" if worse else "improved" if differing else "same"
    words = [
        f"{name} {base:,} -> {head:,}" + (f" ({head / base - 1:+.1%})" if base else "")
        for name, (base, head) in differing.items()
    ]
    return Judged(entry.key, said, reason="; ".join(words) or None, exact=differing, case=case)


class Job:
    """Rounds until every verdict is decided, the last look is over, or the budget is spent."""

    def __init__(self, entries: list[Entry], rounds: Rounds, policy: Policy, budget_s: float | None, start: float):
        self.entries, self.rounds, self.policy = entries, rounds, policy
        self.thresholds = {entry.key: policy.thresholds.of(entry.key) for entry in entries}
        self.budget_s, self.start = budget_s, start
        self.decided: dict[str, verdicts.Verdict] = {}
        self.forgiven: dict[str, int] = {}

    def run(self) -> None:
        looks = (*LOOKS, *MORE_LOOKS) if self.policy.retries("inconclusive") else LOOKS
        for number in range(1, looks[-1] + 1):
            waiting = [entry for entry in self.entries if entry.key not in self.decided and self._can_go_on(entry.key)]
            if not waiting or (number > 1 and self._too_late()):
                return
            self.rounds.run(waiting, self.entries[0], stop=self._is_over)
            print(f"mixprof: round {number} of at most {looks[-1]}, {counted(len(waiting), 'case')}", file=sys.stderr)
            if number in looks:
                found = self.look()
                self.decided |= {key: verdict for key, verdict in found.items() if not verdict.open}

    def _can_go_on(self, key: str) -> bool:
        """Whether a case is still to be measured. A failure of BASE is forgotten, twice, where the policy says so."""
        failed = self.rounds.pairs.failed
        if key in failed and failed[key][0] == "base" and self.policy.retries("incomparable"):
            self.forgiven[key] = self.forgiven.get(key, 0) + 1
            if self.forgiven[key] <= FORGIVEN:
                del failed[key]
        return key not in failed

    def look(self) -> dict[str, verdicts.Verdict]:
        """The verdicts now, those of the cases that are decided as they were."""
        enough = {key: each for key, each in self._of_cases().items() if len(each) >= 2}
        found = verdicts.judge(enough, self.thresholds) if enough else {}
        return {**found, **self.decided}

    def _of_cases(self) -> dict[str, list[float]]:
        return {key: each for key, each in self.rounds.pairs.differences.items() if key != CANARY}

    def _is_over(self) -> bool:
        return self.budget_s is not None and time.monotonic() - self.start >= self.budget_s

    def _too_late(self) -> bool:
        """Whether another round would end after the budget."""
        spent = self.rounds.pairs.spent_s
        done = max((len(each) for each in self.rounds.pairs.differences.values()), default=1)
        return self.budget_s is not None and time.monotonic() - self.start + spent / max(done, 1) > self.budget_s

    def outcome(
        self,
        base: str,
        head: str,
        differing: dict[str, dict[str, tuple[Any, Any]]],
        lost: list[Judged],
        notes: list[str],
    ) -> Outcome:
        found = self.look()
        cases = [self._judged(entry, found.get(entry.key), differing[entry.key]) for entry in self.entries]
        by_case = {entry.key: each for entry in self.entries if (each := self._of_cases().get(entry.key))}
        canary = self.rounds.pairs.differences.get(CANARY, [])
        seen = [each for each in by_case.values() if len(each) >= LOOKS[0]]
        passing = waived(self.policy, datetime.date.today())
        by_case = {key: each for key, each in by_case.items() if key not in passing}  # accepted: not to fail many
        return Outcome(
            "ab", base, head, [*cases, *lost],
            families=self._families(by_case),
            grid=self._of_many("all cases", by_case) if len(by_case) > 1 else None,
            canary=Judged.of(CANARY, verdicts.judge({CANARY: canary})[CANARY]) if len(canary) >= 2 else None,
            spent_s=time.monotonic() - self.start,
            detectable=verdicts.smallest_detectable(statistics.median(map(statistics.stdev, seen)), min(map(len, seen)))
            if seen
            else None,
            notes=notes,
            canary_differences=canary,
        )  # fmt: skip

    def _judged(self, entry: Entry, verdict: verdicts.Verdict | None, differing: dict[str, tuple[Any, Any]]) -> Judged:
        more: dict[str, Any] = {"exact": {**differing, **self._proofs(entry.key)}, "case": entry.base.case.to_json()}
        more["times"] = self._times(entry)
        if entry.key in self.rounds.pairs.failed:
            side, status, reason = self.rounds.pairs.failed[entry.key]
            said = "missing" if side == "head" else "incomparable"
            return Judged(entry.key, said, reason=f"{side}: {status}: {reason}", **more)
        disturbed = self.rounds.pairs.disturbed.get(entry.key, 0)
        if verdict is None:
            reason = (
                f"{counted(disturbed, 'round')} lost too much CPU time to other processes"
                if disturbed
                else "no time was left for the two rounds that a verdict takes"
            )
            return Judged(entry.key, "inconclusive", reason=reason, **more)
        if verdict.open:
            values = self.rounds.pairs.differences[entry.key]
            wanted = verdicts.rounds_to_decide(verdict, statistics.stdev(values), self.thresholds[entry.key])
            if wanted is not None:
                each_s = self.rounds.pairs.spent_s / max(len(values), 1) / len(self.entries)
                rounds = wanted - verdict.rounds
                more |= {"more_rounds": rounds, "more_s": rounds * each_s}
            else:
                more["reason"] = "a thousand rounds would not decide it: it varies too much here"
        return Judged.of(entry.key, verdict, **more)

    def _times(self, entry: Entry) -> dict[str, times.Time]:
        """HEAD's times, over the rounds that count."""
        rounds, repeats = self.rounds.pairs.head_ms.get(entry.key, []), self.rounds.pairs.head_repeats.get(entry.key)
        return times.of_rounds(rounds, repeats == 1, entry.head.case.device)

    def _proofs(self, key: str) -> dict[str, tuple[Any, Any]]:
        """Graph breaks, recompiles and kernels, where the sides differ."""
        proofs = list(self.rounds.pairs.proofs.get(key, {}).values())
        names = ("graph_breaks", "recompiles", "kernels")
        if len(proofs) != 2:
            return {}
        found = {name: (proofs[0].get(name), proofs[1].get(name)) for name in names}
        return {name: (a, b) for name, (a, b) in found.items() if a is not None and b is not None and a != b}

    def _families(self, by_case: dict[str, list[float]]) -> list[Judged]:
        """One verdict for each lowering and model that several cases share."""
        names: dict[str, dict[str, list[float]]] = {}
        for entry in self.entries:
            if entry.key in by_case:
                case = entry.base.case
                names.setdefault(f"{case.model} {case.lowering}", {})[entry.key] = by_case[entry.key]
        return [self._of_many(name, members) for name, members in names.items() if len(members) > 1]

    def _of_many(self, name: str, members: dict[str, list[float]]) -> Judged:
        rounds = min(len(each) for each in members.values())
        differences = verdicts.together({key: each[:rounds] for key, each in members.items()})
        if len(differences) < 2:
            return Judged(name, "inconclusive", rounds=len(differences))
        return Judged.of(name, verdicts.judge({name: differences}, self.policy.thresholds.of_family(members))[name])
