"""`mixprof bisect`: the commit between GOOD and BAD at which a case regressed, by an `ab` at each step."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mixprof.api import compare
from mixprof.cli.command import Command, add_axes, add_files, add_json, add_list, add_measure, print_json, read_sweep
from mixprof.cli.gate_options import add_setup, refuse_no_model
from mixprof.data.errors import UsageError
from mixprof.data.files import new_folder
from mixprof.data.json import to_builtins
from mixprof.data.run_folder import make_folder
from mixprof.gate.ab import Spec
from mixprof.gate.bisection import FirstBad, Word, bisect
from mixprof.gate.git import DEEPEN, is_ancestor, is_shallow, resolve, subject, work_tree
from mixprof.reports.gate import thresholds
from mixprof.reports.gate.outcome import Judged, Policy
from mixprof.reports.gate.tables import in_words

INCONCLUSIVE = 3  # exit code
RETRIES = 2  # of a step whose verdict is inconclusive; then the commit is skipped
WORDS: dict[str, Word] = {"regressed": "bad", "same": "good", "improved": "good"}  # skip for any other verdict


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of `bisect`."""
    command.add_argument("good", metavar="GOOD", help="a revision that is fast, an ancestor of BAD")
    command.add_argument("bad", metavar="BAD", help="a revision that is slow")
    add_setup(command, "as of `ab`; a commit in which it fails is skipped")
    command.add_argument("--exact-only", action="store_true", help="by counts alone: no time is measured")
    command.add_argument("--budget", type=float, metavar="S", help="seconds for one step, at most")
    add_list(command, "--threshold", "T", "relative, as of `ab`")
    command.add_argument("--retries", default=str(RETRIES), metavar="N", help="of an inconclusive step (default: 2)")
    command.add_argument(
        "--out", metavar="DIR", help="a new folder for each step's samples and verdicts (default: runs/bisect-<time>)"
    )
    add_json(command)
    add_axes(command)
    add_files(command)
    add_measure(command, "any")


@dataclass(frozen=True)
class Step:
    """One commit, its verdict against GOOD, and the word that git was told."""

    commit: str
    subject: str
    said: Word  # the name that scripts read
    judged: Judged


@dataclass
class Steps:
    """Judges one commit after the other against one GOOD."""

    spec: Spec  # BASE is GOOD
    policy: Policy
    tries: int
    folder: Path
    done: list[Step]
    time: str | None = None  # of a GPU's case: that in which BAD is slower; None: its latency

    def judge(self, commit: str) -> Word:
        """Return git's word for a commit. An inconclusive verdict is looked for again, then skipped."""
        for number in range(self.tries):
            spec = replace(self.spec, head=commit, out=self.folder / f"{commit[:10]}-{number}")
            try:
                judged = self._of_one_time(compare(spec, self.policy).trusted)
            except UsageError as error:  # it cannot be prepared: no finding about its speed
                judged = Judged(commit, "missing", reason=str(error))
            if judged.verdict != "inconclusive":
                break
        step = Step(commit, subject(commit), WORDS.get(judged.verdict, "skip"), judged)
        self.done.append(step)
        print(f"mixprof: {_line(step)}", file=sys.stderr, flush=True)
        return step.said

    def _of_one_time(self, judged: Sequence[Judged]) -> Judged:
        """The verdict on the time that is followed: BAD's latency, or its host's where that alone regressed."""
        latency = judged[0]
        if not self.done and latency.verdict != "regressed":
            self.time = next((each.time for each in judged if each.verdict == "regressed"), None)
        return next((each for each in judged if each.time == self.time), latency)

    def of(self, commit: str) -> Step:
        return next(step for step in self.done if step.commit == commit)


def run(arguments: argparse.Namespace) -> int:
    """Find the commit; 0 when it is known, 3 when only skipped ones are left or noise hides the regression."""
    good, bad = _check(arguments)
    sweep = read_sweep(arguments)
    spec = Spec(
        sweep.groups, good, bad, sweep.measure, given=sweep.given, prepare=arguments.prepare,
        pythonpath=arguments.pythonpath, exact_only=arguments.exact_only, budget_s=arguments.budget,
    )  # fmt: skip
    policy = Policy(thresholds=thresholds.parse(arguments.threshold))
    folder = Path(arguments.out or new_folder("bisect-"))
    case = _only_case(spec, policy)
    make_folder(folder, hidden=arguments.out is None)
    steps = Steps(spec, policy, 1 if spec.exact_only else 1 + int(arguments.retries), folder, [])
    if steps.judge(bad) != "bad":
        return _not_worse(steps.done[0], arguments)
    with (
        tempfile.TemporaryDirectory(prefix="mixprof-bisect-") as scratch,
        work_tree(bad, Path(scratch) / "git", "--no-checkout") as tree,
    ):
        first = bisect(good, bad, tree, steps.judge)
    print_json(_to_json(case, steps, first)) if arguments.json else print(_text(case, steps, first))
    return 0 if first.commit else INCONCLUSIVE


def _check(arguments: argparse.Namespace) -> tuple[str, str]:
    """GOOD and BAD as commits. UsageError where there is nothing between them to look for."""
    if not arguments.retries.isdecimal():
        raise UsageError(f"--retries: got '{arguments.retries}', expected a whole number from 0 up")
    refuse_no_model(arguments)
    good, bad = resolve(arguments.good), resolve(arguments.bad)
    if good == bad:
        raise UsageError(f"got '{arguments.good}' and '{arguments.bad}', which are one commit, expected two")
    if not is_ancestor(good, bad):
        hint = f"; this clone is shallow: {DEEPEN}" if is_shallow() else ""
        raise UsageError(
            f"got GOOD '{arguments.good}', which is no ancestor of BAD '{arguments.bad}', expected one{hint}"
        )
    return good, bad


def _only_case(spec: Spec, policy: Policy) -> str:
    """Name the one case that the axes give, by an `ab` of counts alone, before anything is timed."""
    cases = compare(replace(spec, exact_only=True, budget_s=None), policy, say=lambda line: None).cases
    if len(cases) > 1:
        raise UsageError(f"got axes that give {len(cases)} cases, expected one: `mixprof ab` says which regressed")
    if cases[0].verdict == "missing":
        raise UsageError(f"BAD cannot be compared with GOOD: {cases[0].reason}")
    return cases[0].name


def _not_worse(step: Step, arguments: argparse.Namespace) -> int:
    """BAD is not slower than GOOD, or nobody can tell."""
    verdict = step.judged.verdict
    if verdict == "inconclusive":
        print("mixprof: whether BAD is slower than GOOD cannot be told: allow more with --budget", file=sys.stderr)
        return INCONCLUSIVE
    if verdict in ("missing", "incomparable"):
        raise UsageError(f"BAD cannot be compared with GOOD: {step.judged.reason}")
    how = "in parameters, MACs or predicted memory" if arguments.exact_only else "in time"
    raise UsageError(
        f"got GOOD '{arguments.good}' and BAD '{arguments.bad}', which do not differ as they should {how} "
        f"({verdict}), expected a regression between them"
    )


def _line(step: Step) -> str:
    """One line of a step: commit, subject, verdict."""
    skipped = ", skipped" if step.said == "skip" else ""
    return f"{step.commit[:10]} {step.subject}: {in_words(step.judged)}{skipped}"


def _text(case: str, steps: Steps, first: FirstBad) -> str:
    if first.commit is not None:
        step = steps.of(first.commit)
        return f"{first.commit} {step.subject}\n{case}: {in_words(step.judged)} against {steps.spec.base[:10]}"
    suspects = [f"{commit} {subject(commit)}" for commit in first.suspects]
    return "\n".join(["only skipped commits are left, the first bad one is among:", *suspects])


def _to_json(case: str, steps: Steps, first: FirstBad) -> dict[str, object]:
    return {
        "case": case,
        "good": steps.spec.base,
        "found": None if first.commit is None else to_builtins(steps.of(first.commit)),
        "suspects": [{"commit": commit, "subject": subject(commit)} for commit in first.suspects],
        "steps": to_builtins(steps.done),
    }


EXAMPLES = ("bisect v1.0 HEAD --models my.zoo:net", "bisect v1.0 HEAD --models my.zoo:net --exact-only")
COMMAND = Command("the commit at which one case regressed, through git's own bisect", add_options, run, EXAMPLES)
