"""What BASE and HEAD stand for: a revision in a work tree of its own, a Python environment, or the folder as it is."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from profiler.types import UsageError

HERE = "."  # the current folder as it is, with what is not committed


@dataclass(frozen=True)
class Side:
    """One of the two things compared."""

    name: str  # as the user gave it
    folder: Path  # user code is imported from here
    python: str  # interpreter
    revision: str | None = None  # commit
    overrides: dict[str, str] = field(default_factory=dict)  # of case fields: {"lowering": "compile"}
    path: tuple[str, ...] = ()  # before all else on the workers' module path


def git(*arguments: str, folder: Path | None = None) -> str:
    """What a git command prints. UsageError, with the fix where it is known, when it fails."""
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    if done.returncode == 0:
        return done.stdout.strip()
    said = " ".join(done.stderr.split())
    if "dubious ownership" in said:
        raise UsageError(f"git does not trust this folder: git config --global --add safe.directory {Path.cwd()}")
    if "not a git repository" in said:
        raise UsageError(f"got '{Path.cwd()}', which is no git repository, expected one, or python:PATH sides")
    raise UsageError(f"git {shlex.join(arguments)}: {said}")


def resolve(name: str) -> str:
    """The commit that a revision names. UsageError for one that does not exist, or that a shallow clone lacks."""
    try:
        return git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    except UsageError as error:
        if "git does not trust" in str(error) or "no git repository" in str(error):
            raise
    shallow = git("rev-parse", "--is-shallow-repository") == "true"
    hint = "this clone is shallow: git fetch --unshallow" if shallow else "`git log` and `git branch -a` list them"
    raise UsageError(f"got revision '{name}', which does not exist here, expected one that does; {hint}")


def merge_base(head: str) -> str:
    """The commit at which HEAD left the default branch. UsageError where a shallow clone hides it."""
    for branch in ("origin/HEAD", "origin/main", "origin/master", "main", "master"):
        with contextlib.suppress(UsageError):
            commit = resolve(branch)
            with contextlib.suppress(UsageError):
                return git("merge-base", commit, resolve(head))
    if git("rev-parse", "--is-shallow-repository") == "true":
        raise UsageError("got merge-base in a shallow clone, which has no common commit: git fetch --unshallow")
    raise UsageError("got merge-base, but no main or master branch is known here, expected one: name the revision")


def uncommitted() -> list[str]:
    """Files with changes that no commit holds."""
    return [line[3:] for line in git("status", "--porcelain").splitlines()]


@contextlib.contextmanager
def sides(names: tuple[str, str], scratch: Path, prepare: str | None, overrides: tuple[dict[str, str], dict[str, str]]
          ) -> Iterator[tuple[Side, Side]]:  # fmt: skip
    """Both sides, made ready; their work trees are gone afterwards."""
    with contextlib.ExitStack() as held:
        made = [held.enter_context(side(name, scratch / label, prepare, given))
                for name, label, given in zip(names, ("base", "head"), overrides, strict=True)]  # fmt: skip
        yield made[0], made[1]


@contextlib.contextmanager
def side(name: str, scratch: Path, prepare: str | None, overrides: dict[str, str]) -> Iterator[Side]:
    """One side. A revision gets a work tree below `scratch`; `prepare` runs in it, in an environment of its own."""
    if name.startswith("python:"):
        yield Side(name, Path.cwd(), _python(name.removeprefix("python:")), overrides=overrides)
        return
    if name == HERE:
        yield Side(name, Path.cwd(), sys.executable, overrides=overrides, path=_own_models(Path.cwd(), scratch))
        return
    commit = resolve(name)
    top = Path(git("rev-parse", "--show-toplevel"))
    below = Path.cwd().relative_to(top)
    tree = scratch / "tree"
    git("worktree", "add", "--quiet", "--detach", str(tree), commit)
    try:
        python = _prepared(tree, scratch, prepare) if prepare else sys.executable
        yield Side(name, tree / below, python, commit, overrides, _own_models(tree, scratch))
    finally:
        git("worktree", "remove", "--force", str(tree), folder=top)


def _python(path: str) -> str:
    """The interpreter of an environment's folder, or the interpreter itself."""
    found = Path(path).expanduser()
    found = found / "bin" / "python" if found.is_dir() else found
    if not os.access(found, os.X_OK):
        raise UsageError(f"got python:{path}, expected an environment's folder or its interpreter")
    return str(found.absolute())


def _prepared(tree: Path, scratch: Path, command: str) -> str:
    """Run the user's command in a work tree, its own environment first on the path; that environment's interpreter."""
    environment = scratch / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--system-site-packages", environment], check=True)
    # An environment made from an environment does not see the packages of the first.
    packages = environment / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    (packages / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
    variables = {**os.environ, "VIRTUAL_ENV": str(environment), "PATH": f"{environment / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(command, shell=True, cwd=tree, env=variables, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["nothing said"]
        raise UsageError(f"--prepare ended with exit code {done.returncode} for {scratch.name}: {last[0]}")
    return str(environment / "bin" / "python")


def _own_models(tree: Path, scratch: Path) -> tuple[str, ...]:
    """In a checkout of this project its `models` alone: registered models are the side's, what measures is ours."""
    if not (tree / "models" / "specialization.py").exists() or not (tree / "profiler" / "worker.py").exists():
        return ()
    folder = scratch / "path"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "models").symlink_to((tree / "models").resolve())
    return (str(folder),)
