"""A git command, and the commit that the current folder has checked out."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from mixprof.data.errors import UsageError
from mixprof.data.json import Message

# What a hook sets for the repository it runs in; a work tree has its own.
OF_A_HOOK = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")


class Commit(Message, frozen=True):
    """What was checked out where a run began."""

    hash: str
    subject: str = ""  # the first line of its message, by whoever wrote it
    dirty: bool = False  # with changes that are in no commit


def ask(
    *arguments: str, folder: Path | None = None, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a git command, in the language that its messages are read in. UsageError where there is no git."""
    inherited = {name: value for name, value in os.environ.items() if name not in OF_A_HOOK}
    environment = {**inherited, "LC_ALL": "C", **(variables or {})}
    try:
        return subprocess.run(["git", *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    except FileNotFoundError as error:
        if folder is not None and not folder.is_dir():
            raise
        raise UsageError("git is not installed, expected it on PATH, or python:PATH sides") from error


def checked_out() -> Commit | None:
    """The commit of the current folder; None outside of a repository, without git, and before a first commit."""
    try:
        shown = ask("log", "-1", "--no-show-signature", "--format=%H%n%s")
    except UsageError:
        return None
    if shown.returncode:
        return None
    hash, _, subject = shown.stdout.rstrip("\n").partition("\n")
    return Commit(hash, subject[:200], bool(ask("status", "--porcelain", "--untracked-files=no").stdout))
