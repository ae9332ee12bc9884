"""`mixprof bisect`: the commit between GOOD and BAD at which a case regressed, by an `ab` at each step."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from profiler import gate_commands
from profiler.compare import grid
from profiler.compare.alone import only_one
from profiler.compare.bisection import Found, Word, bisect
from profiler.compare.revisions import DEEPEN, is_ancestor, is_shallow, resolve, subject, work_tree
from profiler.compare.sides import Side, side
from profiler.sweep import Axes, Measure
from profiler.types import Case, UsageError
from reports import gate
from reports.outcome import INCONCLUSIVE, Judged, Outcome

RETRIES = 2  # of a step whose verdict is inconclusive; then the commit is skipped
SAID: dict[str, Word] = {"regressed": "bad", "same": "good", "improved": "good"}  # to git; skip for any other verdict


def add_options(command: argparse.ArgumentParser) -> None:
    """The options of `bisect` beside axes and settings."""
    command.add_argument("good", metavar="GOOD", help="a revision that is fast, an ancestor of BAD")
    command.add_argument("bad", metavar="BAD", help="a revision that is slow")
    command.add_argument("--prepare", metavar="COMMAND", help="run in each commit's work tree, as of `ab`")
    command.add_argument("--exact-only", action="store_true", help="by parameters, MACs and memory: no time is measured")
    command.add_argument("--budget", type=float, metavar="S", help="seconds for one step, at most")
    command.add_argument("--threshold", type=float, default=gate.THRESHOLD, metavar="T", help="as of `ab`")
    command.add_argument("--retries", default=str(RETRIES), metavar="N", help="of an inconclusive step, then skipped")
    command.add_argument("--json", action="store_true", help="print JSON and nothing else")


@dataclass(frozen=True)
class Step:
    """One commit, its verdict against GOOD, and what git was told."""

    commit: str
    subject: str
    said: Word
    judged: Judged


class Steps:
    """Judges one commit after the other against the same GOOD."""

    def __init__(
        self, good: Side, groups: list[Axes], measure: Measure, arguments: argparse.Namespace, scratch: Path
    ):
        self.good, self.groups, self.measure, self.scratch = good, groups, measure, scratch
        self.arguments, self.retries = _of_ab(arguments), _retries(arguments)
        self.done: list[Step] = []

    def judge(self, commit: str, left: int) -> Word:
        """What git is to be told of a commit. An inconclusive verdict is looked for again, then skipped."""
        tries = 1 if self.arguments.exact_only else 1 + self.retries
        for number in range(tries):
            judged = self._against_good(commit, f"step-{len(self.done)}-{number}")
            if judged.verdict != "inconclusive":
                break
        step = Step(commit, subject(commit), SAID.get(judged.verdict, "skip"), judged)
        self.done.append(step)
        more = f", about {left} more" if left else ""
        print(f"mixprof: {_in_words(step)}{more}", file=sys.stderr, flush=True)
        return step.said

    def _against_good(self, commit: str, name: str) -> Judged:
        folder = self.scratch / name
        with ExitStack() as held:
            if not self.arguments.exact_only:
                held.enter_context(only_one())
            try:
                candidate = held.enter_context(side(commit, folder, self.arguments.prepare, {}))
            except UsageError as error:  # it cannot be prepared: no finding about its speed
                return Judged(commit, "missing", reason=str(error))
            both = (self.good, candidate)
            return _trusted(gate_commands.compare(both, self.groups, self.measure, self.arguments, folder / "job"))

    def of(self, commit: str) -> Step:
        return next(step for step in self.done if step.commit == commit)


def run_bisect(arguments: argparse.Namespace, groups: list[Axes], measure: Measure) -> int:
    """Find the commit; 0 when it is found, 3 when only skipped ones are left or the noise hides the regression."""
    good, bad = _check(arguments, groups)
    with ExitStack() as held:
        scratch = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="mixprof-bisect-")))
        reference = held.enter_context(side(good, scratch / "good", arguments.prepare, {}))
        case = _only_case(reference, groups, measure)
        steps = Steps(reference, groups, measure, arguments, scratch)
        if steps.judge(bad, 0) != "bad":
            return _not_worse(steps.done[0], arguments)
        tree = held.enter_context(work_tree(bad, scratch / "git", "--no-checkout"))
        found = bisect(good, bad, tree, steps.judge)
    _print(arguments, case, steps, found)
    return 0 if found.commit else INCONCLUSIVE


def _check(arguments: argparse.Namespace, groups: list[Axes]) -> tuple[str, str]:
    """GOOD and BAD as commits. UsageError where there is nothing between them to look for."""
    if not any(group.models for group in groups):
        raise UsageError("got no model, expected --models with the case that regressed")
    if arguments.budget is not None and arguments.budget <= 0:
        raise UsageError(f"--budget: got {arguments.budget:g}, expected seconds above 0")
    if not 0 < arguments.threshold < 1:
        raise UsageError(f"--threshold: got {arguments.threshold:g}, expected a share like 0.02")
    _retries(arguments)
    good, bad = resolve(arguments.good), resolve(arguments.bad)
    if good == bad:
        raise UsageError(f"got '{arguments.good}' and '{arguments.bad}', which are one commit, expected two")
    if not is_ancestor(good, bad):
        hint = f"; this clone is shallow: {DEEPEN}" if is_shallow() else ""
        raise UsageError(f"got GOOD '{arguments.good}', which is no ancestor of BAD '{arguments.bad}', expected one{hint}")
    return good, bad


def _retries(arguments: argparse.Namespace) -> int:
    if not arguments.retries.isdecimal():
        raise UsageError(f"--retries: got '{arguments.retries}', expected a whole number from 0 up")
    return int(arguments.retries)


def _only_case(good: Side, groups: list[Axes], measure: Measure) -> Case:
    """The one case that the axes give at GOOD."""
    with gate_commands.ask(good, measure) as asked:
        planned = grid.of_side(groups, good, asked)
    possible = [entry for entry in planned.values() if entry.reason is None]
    if not possible:
        raise UsageError(f"GOOD cannot run the case: {next(iter(planned.values())).reason}")
    if len(planned) > 1:
        raise UsageError(f"got axes that give {len(planned)} cases, expected one: `mixprof ab` says which regressed")
    return possible[0].case


def _of_ab(arguments: argparse.Namespace) -> argparse.Namespace:
    """The arguments as those of `ab`, whatever else it takes at its default."""
    defaults = argparse.ArgumentParser()
    gate_commands.add_options(defaults)
    return argparse.Namespace(**{**vars(defaults.parse_args([])), **vars(arguments)})


def _trusted(outcome: Outcome) -> Judged:
    """The verdict of the one case; inconclusive where the baseline differs from itself."""
    judged = outcome.cases[0]
    if outcome.canary is not None and outcome.canary.verdict in ("regressed", "improved"):
        return replace(judged, verdict="inconclusive", reason="the baseline differs from itself: not to be trusted")
    return judged


def _not_worse(step: Step, arguments: argparse.Namespace) -> int:
    """BAD is not slower than GOOD, or nobody can tell."""
    verdict = step.judged.verdict
    if verdict == "inconclusive":
        print(f"mixprof: whether BAD is slower than GOOD cannot be told: {_in_words(step)}", file=sys.stderr)
        return INCONCLUSIVE
    if verdict in ("missing", "incomparable"):
        raise UsageError(f"BAD cannot be compared with GOOD: {step.judged.reason}")
    how = "in parameters, MACs or predicted memory" if arguments.exact_only else "in time"
    raise UsageError(
        f"got GOOD '{arguments.good}' and BAD '{arguments.bad}', which do not differ as they should {how} "
        f"({verdict}), expected a regression between them"
    )


def _in_words(step: Step) -> str:
    """One line of a step: commit, subject, verdict."""
    skipped = ", skipped" if step.said == "skip" else ""
    return f"{step.commit[:10]} {step.subject}: {_verdict(step.judged)}{skipped}"


def _verdict(judged: Judged) -> str:
    if judged.change is None or judged.low is None or judged.high is None:
        return judged.verdict + (f" ({judged.reason})" if judged.reason else "")
    interval = f"[{judged.low:+.1%}, {judged.high:+.1%}]"
    return f"{judged.verdict} {judged.change:+.1%} {interval} in {judged.rounds} rounds"


def _print(arguments: argparse.Namespace, case: Case, steps: Steps, found: Found) -> None:
    if arguments.json:
        print(json.dumps(_to_json(case, steps, found), indent=1))
    elif found.commit is not None:
        step = steps.of(found.commit)
        print(f"{found.commit} {step.subject}")
        print(f"{case.label()}: {_verdict(step.judged)}, against GOOD {steps.good.revision}")
    else:
        print("only skipped commits are left, the first bad one is among:")
        print("\n".join(f"{commit} {subject(commit)}" for commit in found.suspects))


def _to_json(case: Case, steps: Steps, found: Found) -> dict[str, Any]:
    convicted = None if found.commit is None else asdict(steps.of(found.commit))
    return {
        "case": case.to_json(),
        "good": steps.good.revision,
        "found": convicted,
        "suspects": [{"commit": commit, "subject": subject(commit)} for commit in found.suspects],
        "steps": [asdict(step) for step in steps.done],
    }
