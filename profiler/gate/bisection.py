"""Which commit changed something: git's own bisect, stepped by a function that judges one commit."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mixprof.data.errors import UsageError
from mixprof.gate.git import ask

Word = Literal["good", "bad", "skip"]  # as git's bisect takes them
COMMIT = r"[0-9a-f]{40,64}"


@dataclass(frozen=True)
class Found:
    """The first bad commit; or, with none, those among which it is, all but the last of them skipped."""

    commit: str | None
    suspects: tuple[str, ...]


def bisect(good: str, bad: str, tree: Path, judge: Callable[[str], Word]) -> Found:
    """Find the first bad commit. judge: what git is told of a commit.

    tree: a linked work tree, which has a bisect of its own: the user's checkout, and a bisect in it, stay as they are.
    Nothing is checked out in it.
    """
    said = _say(tree, "start", "--no-checkout", bad, good)
    while (found := _found(said)) is None:
        candidate = ask("rev-parse", "--verify", "BISECT_HEAD", folder=tree).stdout.strip()
        said = _say(tree, judge(candidate), candidate)
    return found


def _say(tree: Path, *words: str) -> str:
    """What git's bisect answers. It ends with 2 when only skipped commits are left."""
    done = ask("bisect", *words, folder=tree)
    if done.returncode and "only 'skip'ped commits left" not in done.stdout:
        raise UsageError(f"git bisect {' '.join(words)}: {' '.join((done.stderr or done.stdout).split())}")
    return done.stdout


def _found(said: str) -> Found | None:
    if first := re.search(rf"^({COMMIT}) is the first bad commit", said, re.MULTILINE):
        return Found(first[1], ())
    if "only 'skip'ped commits left" in said:
        return Found(None, tuple(re.findall(rf"^({COMMIT})$", said, re.MULTILINE)))
    return None
