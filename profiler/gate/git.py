"""What is asked of git: commits by name, what is not committed, and work trees that are gone afterwards."""

import contextlib
import fcntl
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from mixprof.data.errors import UsageError
from mixprof.data.git import ask

TREE, ALIVE = "tree", "mixprof-alive"  # a work tree, and the file beside it that its maker locks while it lives
DEEPEN = "git fetch --unshallow (in CI: check out with fetch-depth: 0)"


def git(*arguments: str, folder: Path | None = None) -> str:
    """What a git command prints. UsageError, with the fix where it is known, when it fails."""
    done = ask(*arguments, folder=folder)
    if done.returncode == 0:
        return done.stdout.rstrip("\n")
    message = " ".join(done.stderr.split())
    if "dubious ownership" in message:
        fix = message.partition("call: ")[2] or f"git config --global --add safe.directory {Path.cwd()}"
        raise UsageError(f"git does not trust this repository, another user's: {fix}")
    if "not a git repository" in message:
        raise UsageError(f"got '{Path.cwd()}', which is no git repository, expected one, or python:PATH sides")
    raise UsageError(f"git {shlex.join(arguments)}: {message or f'exit code {done.returncode}'}")


def is_shallow() -> bool:
    return git("rev-parse", "--is-shallow-repository") == "true"


def resolve(name: str) -> str:
    """The commit that a revision names. UsageError for one that does not exist, or that a shallow clone lacks."""
    done = ask("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    if done.returncode == 0:
        return done.stdout.strip()
    hint = f"this clone is shallow: {DEEPEN}" if is_shallow() else "`git log` and `git branch -a` list them"
    raise UsageError(f"got revision '{name}', which does not exist here, expected one that does; {hint}")


def merge_base(head: str) -> str:
    """The commit at which a revision left the default branch. UsageError where a shallow clone hides it."""
    commit = resolve(head)
    branches = ("origin/HEAD", "origin/main", "origin/master", "main", "master")
    known = [name for name in branches if ask("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").stdout.strip()]
    for branch in known:
        done = ask("merge-base", branch, commit)
        if done.returncode == 0:
            return done.stdout.strip()
    if is_shallow():
        raise UsageError(f"got merge-base in a shallow clone, which lacks the common commit: {DEEPEN}")
    if known:
        raise UsageError(f"got merge-base, but '{head}' has no commit in common with {known[0]}: name the revision")
    raise UsageError("got merge-base, but no main or master branch is known here, expected one: name the revision")


def is_ancestor(old: str, new: str) -> bool:
    """Whether the second commit descends from the first, or is it."""
    return ask("merge-base", "--is-ancestor", old, new).returncode == 0


def subject(commit: str) -> str:
    return git("log", "-1", "--format=%s", commit)


def uncommitted() -> list[str]:
    """Files with changes that no commit holds, but for what we write; none outside a repository."""
    if ask("rev-parse", "--is-inside-work-tree").stdout.strip() != "true":
        return []
    return [line[3:] for line in git("status", "--porcelain").splitlines() if line != "?? runs/"]


def work_trees(folder: Path) -> list[Path]:
    """Every work tree of the repository that a folder is in, the user's own among them; none outside of one."""
    lines = ask("worktree", "list", "--porcelain", folder=folder).stdout.splitlines()
    return [Path(line.removeprefix("worktree ")) for line in lines if line.startswith("worktree ")]


@contextlib.contextmanager
def work_tree(commit: str, scratch: Path, *options: str) -> Iterator[Path]:
    """A work tree of a commit below `scratch`, gone afterwards: also after Ctrl-C and SIGTERM.

    A `kill -9` leaves it; whoever makes the next one in this repository removes it (`remove_left_behind`).
    """
    top = Path(git("rev-parse", "--show-toplevel"))
    scratch.mkdir(parents=True, exist_ok=True)
    tree = scratch / TREE
    with (scratch / ALIVE).open("w") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        remove_left_behind(top)
        try:
            git("worktree", "add", "--quiet", "--detach", *options, str(tree), commit)
            yield tree
        finally:
            _remove(top, tree)


def _remove(top: Path, tree: Path) -> None:
    """Forget a work tree and delete its folder, however much of either there is."""
    # Not `git worktree prune`: it would also forget the user's own on a disk that is not there now.
    if ask("worktree", "remove", "--force", "--force", str(tree), folder=top).returncode:
        shutil.rmtree(tree, ignore_errors=True)
        ask("worktree", "remove", "--force", "--force", str(tree), folder=top)


def remove_left_behind(top: Path) -> None:
    """Remove the work trees of this repository whose makers were killed."""
    for tree in work_trees(top):
        if tree.name == TREE and _is_abandoned(tree.parent / ALIVE):
            _remove(top, tree)
            shutil.rmtree(tree.parent, ignore_errors=True)


def _is_abandoned(path: Path) -> bool:
    """Whether a process locked this file, and has ended. False for a folder that is none of ours."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
