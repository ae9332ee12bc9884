"""What BASE and HEAD stand for: a revision in a work tree of its own, a Python environment, or the folder as it is."""

import contextlib
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mixprof.data.errors import UsageError
from mixprof.data.git import ask
from mixprof.gate import submodules
from mixprof.gate.git import git, resolve, work_tree
from mixprof.gate.module_path import installed_from, roots
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
    tree: Path = field(default_factory=Path.cwd)  # top of its work tree; `folder` where it is in none
    roots: tuple[str, ...] = ()  # user code is looked for here first
    environment: Path | None = None  # the one that --prepare was given

    @property
    def origin(self) -> Origin:
        """The code that its servers run."""
        return Origin(self.python, self.path, self.folder, self.roots)

    @property
    def words(self) -> str:
        """The name that the user gave, with the commit that it stood for."""
        return self.name if self.revision is None else f"{self.name} ({self.revision[:10]})"


def is_revision(name: str) -> bool:
    return name != HERE and not name.startswith("python:")


@dataclass(frozen=True)
class Setup:
    """What is done to both sides before either is asked for anything."""

    prepare: str | None = None  # command that is run in each revision's work tree
    pythonpath: tuple[str, ...] = ()  # folders below the current one that user code is imported from


@contextlib.contextmanager
def sides(names: tuple[str, str], scratch: Path, setup: Setup, overrides: tuple[dict[str, str], dict[str, str]]
          ) -> Iterator[tuple[Side, Side]]:  # fmt: skip
    """Both sides, made ready; their work trees are gone afterwards. UsageError for a module path that neither has."""
    with contextlib.ExitStack() as opened:
        made = [opened.enter_context(side(name, scratch / label, setup, given))
                for name, label, given in zip(names, ("base", "head"), overrides, strict=True)]  # fmt: skip
        for folder in setup.pythonpath:
            if not any((one.folder / folder).is_dir() for one in made):
                raise UsageError(f"got --pythonpath '{folder}', which neither side has, expected a folder of them")
        yield made[0], made[1]


@contextlib.contextmanager
def side(name: str, scratch: Path, setup: Setup, overrides: dict[str, str]) -> Iterator[Side]:
    """One side. A revision gets a work tree below `scratch`; `prepare` runs in it, in an environment of its own."""
    here = Path.cwd()
    if not is_revision(name):
        python = sys.executable if name == HERE else _python(name.removeprefix("python:"))
        tree = Path(top) if (top := ask("rev-parse", "--show-toplevel").stdout.strip()) else here
        # An environment is compared by what is installed in it: a `src` of this folder does not go before that.
        first = roots(here, tree, setup.pythonpath, detect=name == HERE)
        yield Side(name, here, python, overrides=overrides, path=_path(here, scratch), tree=tree, roots=first)
        return
    commit = resolve(name)
    below = here.relative_to(git("rev-parse", "--show-toplevel"))
    with work_tree(commit, scratch) as tree:
        submodules.fill(tree)
        folder = tree / below
        # A folder that this commit has not yet is one in which nothing can be imported: `missing`, not an error.
        folder.mkdir(parents=True, exist_ok=True)
        environment = _prepared(tree, scratch, setup.prepare) if setup.prepare else None
        python = str(environment / "bin" / "python") if environment else sys.executable
        # Whether --prepare installed something of the tree: with what it built, it then comes before the tree's `src`.
        packages = environment.glob("lib/python*/site-packages") if environment is not None else ()
        installs = any(True for site in packages for _ in installed_from([tree.resolve(), tree], site))
        first = roots(folder, tree, setup.pythonpath, detect=not installs)
        yield Side(name, folder, python, commit, overrides, _path(tree, scratch), tree, first, environment)


def _python(path: str) -> str:
    """The interpreter of an environment's folder, or the interpreter itself. UsageError where it cannot be one."""
    named = Path(path).expanduser()
    python = named / "bin" / "python" if named.is_dir() else named
    if not os.access(python, os.X_OK) or python.is_dir():
        raise UsageError(f"got python:{path}, expected an environment's folder or its interpreter")
    needs = ("torch", "numpy")
    ask = f"import importlib.util as u; print('lacks', *(n for n in {needs} if not u.find_spec(n)))"
    try:
        done = subprocess.run([python, "-c", ask], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"got python:{path}, which does not run ({error}), expected an interpreter") from None
    word, *lacks = done.stdout.split() or [""]
    if done.returncode or word != "lacks":
        raise UsageError(f"got python:{path}, which is no Python, expected an environment's folder or its interpreter")
    if lacks:
        raise UsageError(f"got python:{path}, which lacks {', '.join(lacks)}, expected an environment that has them")
    return str(python.absolute())


def _prepared(tree: Path, scratch: Path, command: str) -> Path:
    """Run the user's command in a work tree, its own environment first on the path; that environment."""
    environment = scratch / "environment"
    make = [sys.executable, "-m", "venv", "--system-site-packages", str(environment)]
    made = subprocess.run(make, capture_output=True, text=True)
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
    return environment


def has_registered(tree: Path) -> bool:
    """Whether registered models come from a tree: it is a checkout of this project."""
    return (tree / "models" / "specialization.py").exists() and (tree / "src" / "mixprof").exists()


def _path(tree: Path, scratch: Path) -> tuple[str, ...]:
    """What comes before a side's own modules: what measures is ours on both, whatever is installed on either.

    In a checkout of this project its `models` too: registered models are the side's.
    """
    package = scratch / "path" / "mixprof"
    package.mkdir(parents=True, exist_ok=True)
    for part in Path(__file__).parents[1].iterdir():
        source = (tree / "models").resolve() if part.name == "models" and has_registered(tree) else part
        (package / part.name).symlink_to(source)
    return (str(package.parent),)
