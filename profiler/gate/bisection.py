"""Which commit changed something: git's own bisect, stepped by a function that judges one commit."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mixprof.data.errors import UsageError
from mixprof.data.git import ask

Word = Literal["good", "bad", "skip"]  # as git's bisect takes them
COMMIT = r"[0-9a-f]{40,64}"
NONE_LEFT = "only 'skip'ped commits left"


@dataclass(frozen=True)
class FirstBad:
    """The first bad commit; or, with none, those among which it is, all but the last of them skipped."""

    commit: str | None
    suspects: tuple[str, ...]


def bisect(good: str, bad: str, tree: Path, judge: Callable[[str], Word]) -> FirstBad:
    """Find the first bad commit. judge: returns what git is told of a commit.

    tree: a linked work tree, which has a bisect of its own: the user's checkout, and a bisect in it, stay as they are.
    Nothing is checked out in it.
    """
    answer = _tell(tree, "start", "--no-checkout", bad, good)
    while (first := _first_bad(answer)) is None:
        candidate = ask("rev-parse", "--verify", "BISECT_HEAD", folder=tree).stdout.strip()
        answer = _tell(tree, judge(candidate), candidate)
    return first


def _tell(tree: Path, *words: str) -> str:
    """Return the answer of git's bisect, which ends with 2 when only skipped commits are left."""
    done = ask("bisect", *words, folder=tree)
    if done.returncode and NONE_LEFT not in done.stdout:
        raise UsageError(f"git bisect {' '.join(words)}: {' '.join((done.stderr or done.stdout).split())}")
    return done.stdout


def _first_bad(answer: str) -> FirstBad | None:
    if first := re.search(rf"^({COMMIT}) is the first bad commit", answer, re.MULTILINE):
        return FirstBad(first[1], ())
    if NONE_LEFT in answer:
        return FirstBad(None, tuple(re.findall(rf"^({COMMIT})$", answer, re.MULTILINE)))
    return None
