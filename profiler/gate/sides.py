"""What BASE and HEAD stand for: a revision in a work tree of its own, a Python environment, or the folder as it is."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mixprof.data.errors import UsageError
from mixprof.gate.git import git, resolve, work_tree
from mixprof.run.client import Origin

HERE = "."  # the current folder as it is, with what is not committed


@dataclass(frozen=True)
class Side:
    """One of the two things compared."""

    name: str  # as the user gave it
    folder: Path  # user code is imported from here
    python: str  # interpreter
    revision: str | None = None  # commit
    overrides: dict[str, str] = field(default_factory=dict)  # of case fields: {"lowering": "compile"}
    path: tuple[str, ...] = ()  # first on the workers' module path

    @property
    def origin(self) -> Origin:
        """The code that its servers run."""
        return Origin(self.python, self.path, self.folder)

    @property
    def words(self) -> str:
        """The name that the user gave, with the commit that it stood for."""
        return self.name if self.revision is None else f"{self.name} ({self.revision[:10]})"


def is_revision(name: str) -> bool:
    return name != HERE and not name.startswith("python:")


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
        python = _python(name.removeprefix("python:"))
        yield Side(name, Path.cwd(), python, overrides=overrides, path=_path(Path.cwd(), scratch))
        return
    if name == HERE:
        yield Side(name, Path.cwd(), sys.executable, overrides=overrides, path=_path(Path.cwd(), scratch))
        return
    commit = resolve(name)
    below = Path.cwd().relative_to(git("rev-parse", "--show-toplevel"))
    with work_tree(commit, scratch) as tree:
        # A folder that this commit has not yet is one in which nothing can be imported: `missing`, not an error.
        (tree / below).mkdir(parents=True, exist_ok=True)
        python = _prepared(tree, scratch, prepare) if prepare else sys.executable
        yield Side(name, tree / below, python, commit, overrides, _path(tree, scratch))


def _python(path: str) -> str:
    """The interpreter of an environment's folder, or the interpreter itself. UsageError where it cannot be one."""
    found = Path(path).expanduser()
    found = found / "bin" / "python" if found.is_dir() else found
    if not os.access(found, os.X_OK) or found.is_dir():
        raise UsageError(f"got python:{path}, expected an environment's folder or its interpreter")
    needs = ("torch", "numpy", "scipy", "msgspec")
    ask = f"import importlib.util as u; print('lacks', *(n for n in {needs} if not u.find_spec(n)))"
    try:
        done = subprocess.run([found, "-c", ask], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"got python:{path}, which does not run ({error}), expected an interpreter") from None
    word, *lacks = done.stdout.split() or [""]
    if done.returncode or word != "lacks":
        raise UsageError(f"got python:{path}, which is no Python, expected an environment's folder or its interpreter")
    if lacks:
        raise UsageError(f"got python:{path}, which lacks {', '.join(lacks)}, expected an environment that has them")
    return str(found.absolute())


def _prepared(tree: Path, scratch: Path, command: str) -> str:
    """Run the user's command in a work tree, its own environment first on the path; that environment's interpreter."""
    environment = scratch / "environment"
    made = subprocess.run(
        [sys.executable, "-m", "venv", "--system-site-packages", environment], capture_output=True, text=True
    )
    if made.returncode:
        last = (made.stdout or made.stderr).strip().splitlines()[-1:] or ["nothing said"]
        raise UsageError(f"--prepare: no environment could be made with `python -m venv`: {last[0]}")
    # An environment made from an environment does not see the packages of the first, the editable ones among them.
    packages = environment / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    (packages / "outer.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    variables = {**os.environ, "VIRTUAL_ENV": str(environment), "PATH": f"{environment / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(command, shell=True, cwd=tree, env=variables, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["nothing said"]
        raise UsageError(f"--prepare ended with exit code {done.returncode} for {scratch.name}: {last[0]}")
    return str(environment / "bin" / "python")


def _path(tree: Path, scratch: Path) -> tuple[str, ...]:
    """What comes before a side's own modules: what measures is ours on both, whatever is installed on either.

    In a checkout of this project its `models` too: registered models are the side's.
    """
    folder = scratch / "path"
    package = folder / "mixprof"
    package.mkdir(parents=True, exist_ok=True)
    ours = Path(__file__).parents[1]
    own_models = (tree / "models" / "specialization.py").exists() and (tree / "src" / "mixprof").exists()
    for part in ours.iterdir():
        source = (tree / "models").resolve() if part.name == "models" and own_models else part
        (package / part.name).symlink_to(source)
    return (str(folder),)
