"""`mixprof bisect`: the commit between GOOD and BAD at which a case regressed, by an `ab` at each step."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mixprof.cli.gate_options import refuse_no_model
from mixprof.data.errors import UsageError
from mixprof.data.run_folder import make_folder
from mixprof.gate import job
from mixprof.gate.bisection import Found, Word, bisect
from mixprof.gate.git import DEEPEN, is_ancestor, is_shallow, resolve, subject, work_tree

INCONCLUSIVE = 3  # exit code
RETRIES = 2  # of a step whose verdict is inconclusive; then the commit is skipped
SAID: dict[str, Word] = {"regressed": "bad", "same": "good", "improved": "good"}  # to git; skip for any other verdict


def add_options(command: argparse.ArgumentParser) -> None:
    """The options of `bisect` beside axes and settings."""
    command.add_argument("good", metavar="GOOD", help="a revision that is fast, an ancestor of BAD")
    command.add_argument("bad", metavar="BAD", help="a revision that is slow")
    command.add_argument("--prepare", metavar="COMMAND", help="as of `ab`; a commit in which it fails is skipped")
    command.add_argument("--exact-only", action="store_true", help="by counts alone: no time is measured")
    command.add_argument("--budget", metavar="S", help="seconds for one step, at most")
    command.add_argument("--threshold", metavar="T", help="relative, as of `ab`")
    command.add_argument("--retries", default=str(RETRIES), metavar="N", help="of an inconclusive step (default: 2)")
    command.add_argument(
        "--out", metavar="DIR", help="a new folder for each step's samples and verdicts (default: runs/bisect-<time>)"
    )
    command.add_argument("--json", action="store_true", help="print JSON and nothing else")


@dataclass(frozen=True)
class Step:
    """One commit, its verdict against GOOD, and what git was told."""

    commit: str
    subject: str
    said: Word
    judged: dict[str, Any]  # a case of an outcome of `ab`


class Steps:
    """Judges one commit after the other against the same GOOD."""

    def __init__(self, good: str, options: list[str], tries: int, folder: Path):
        self.good, self.options, self.tries, self.folder = good, options, tries, folder
        self.done: list[Step] = []

    def judge(self, commit: str) -> Word:
        """What git is to be told of a commit. An inconclusive verdict is looked for again, then skipped."""
        for number in range(self.tries):
            judged = self._against_good(commit, self.folder / f"{commit[:10]}-{number}")
            if judged["verdict"] != "inconclusive":
                break
        step = Step(commit, subject(commit), SAID.get(judged["verdict"], "skip"), judged)
        self.done.append(step)
        print(f"mixprof: {_in_words(step)}", file=sys.stderr, flush=True)
        return step.said

    def _against_good(self, commit: str, folder: Path) -> dict[str, Any]:
        try:
            (judged,) = job.trusted(job.run(self.good, commit, *self.options, f"--out={folder}"))
        except UsageError as error:  # it cannot be prepared: no finding about its speed
            return {"verdict": "missing", "change": None, "reason": str(error)}
        return judged

    def of(self, commit: str) -> Step:
        return next(step for step in self.done if step.commit == commit)


def run_bisect(arguments: argparse.Namespace) -> int:
    """Find the commit; 0 when it is found, 3 when only skipped ones are left or noise hides the regression."""
    good, bad = _check(arguments)
    options = _options(arguments)
    folder = Path(arguments.out or time.strftime("runs/bisect-%Y%m%d-%H%M%S"))
    case = _only_case(good, bad, options)
    make_folder(folder, hidden=arguments.out is None)
    steps = Steps(good, options, 1 if arguments.exact_only else 1 + int(arguments.retries), folder)
    if steps.judge(bad) != "bad":
        return _not_worse(steps.done[0], arguments)
    with (
        tempfile.TemporaryDirectory(prefix="mixprof-bisect-") as scratch,
        work_tree(bad, Path(scratch) / "git", "--no-checkout") as tree,
    ):
        found = bisect(good, bad, tree, steps.judge)
    if arguments.json:
        print(json.dumps(_to_json(case, steps, found), indent=1))
    else:
        _print(case, steps, found)
    return 0 if found.commit else INCONCLUSIVE


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
        said = f"got GOOD '{arguments.good}', which is no ancestor of BAD '{arguments.bad}', expected one"
        raise UsageError(said + hint)
    return good, bad


def _options(arguments: argparse.Namespace) -> list[str]:
    """The options that every `ab` is given: axes and settings as the user wrote them."""
    return job.options({name: getattr(arguments, name, None) for name in job.OPTIONS})


def _only_case(good: str, bad: str, options: list[str]) -> str:
    """The one case that the axes give, in words: told by an `ab` of counts alone, before anything is timed."""
    more = [] if "--exact-only" in options else ["--exact-only"]
    with tempfile.TemporaryDirectory(prefix="mixprof-bisect-") as scratch:
        cases = job.run(good, bad, *options, *more, f"--out={scratch}/counts")["cases"]
    if len(cases) > 1:
        raise UsageError(f"got axes that give {len(cases)} cases, expected one: `mixprof ab` says which regressed")
    if cases[0]["verdict"] == "missing":
        raise UsageError(f"BAD cannot be compared with GOOD: {cases[0]['reason']}")
    return str(cases[0]["name"])


def _not_worse(step: Step, arguments: argparse.Namespace) -> int:
    """BAD is not slower than GOOD, or nobody can tell."""
    verdict = step.judged["verdict"]
    if verdict == "inconclusive":
        print("mixprof: whether BAD is slower than GOOD cannot be told: allow more with --budget", file=sys.stderr)
        return INCONCLUSIVE
    if verdict in ("missing", "incomparable"):
        raise UsageError(f"BAD cannot be compared with GOOD: {step.judged['reason']}")
    how = "in parameters, MACs or predicted memory" if arguments.exact_only else "in time"
    raise UsageError(
        f"got GOOD '{arguments.good}' and BAD '{arguments.bad}', which do not differ as they should {how} "
        f"({verdict}), expected a regression between them"
    )


def _in_words(step: Step) -> str:
    """One line of a step: commit, subject, verdict."""
    skipped = ", skipped" if step.said == "skip" else ""
    return f"{step.commit[:10]} {step.subject}: {job.in_words(step.judged)}{skipped}"


def _print(case: str, steps: Steps, found: Found) -> None:
    if found.commit is not None:
        step = steps.of(found.commit)
        print(f"{found.commit} {step.subject}\n{case}: {job.in_words(step.judged)} against {steps.good[:10]}")
        return
    print("only skipped commits are left, the first bad one is among:")
    print("\n".join(f"{commit} {subject(commit)}" for commit in found.suspects))


def _to_json(case: str, steps: Steps, found: Found) -> dict[str, Any]:
    return {
        "case": case,
        "good": steps.good,
        "found": None if found.commit is None else asdict(steps.of(found.commit)),
        "suspects": [{"commit": commit, "subject": subject(commit)} for commit in found.suspects],
        "steps": [asdict(step) for step in steps.done],
    }
