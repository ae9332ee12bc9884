"""Why a revision cannot do what the user's own folder can: what git leaves out of a work tree."""

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from mixprof.data.git import ask
from mixprof.gate import submodules
from mixprof.gate.sides import Side
from mixprof.plan.files import is_file

POINTER = "version https://git-lfs.github.com/spec/"
LONGEST = 200  # of what may be a path
NAMED = 3  # files in a message, at most


def explain(side: Side, reason: str) -> str:
    """The reason why a side failed, with what its tree lacks and how it gets that, if it lacks something."""
    if side.name.startswith("python:"):
        return reason
    cause = next(_causes(side, reason), None)
    return reason if cause is None else f"{reason}; {cause}"


def is_new(model: str, base: Side, head: Side) -> bool:
    """Whether HEAD added this model: BASE's tree has no file of it, or a file that does not name it.

    A file that git ignores, or that is a submodule's, is in no tree before something puts it there: not new.
    """
    path, _, name = model.removeprefix("call:").partition(":")
    before, after = (side.folder / model if is_file(model) else _module_file(side, path) for side in (base, head))
    if before is not None and before.exists():
        text = before.read_text(errors="replace") if before.suffix == ".py" else "import *"
        return not is_file(model) and not re.search(rf"\b{re.escape(name.partition(':')[0])}\b|import \*", text)
    if after is None or not after.is_relative_to(head.tree):
        return False
    below = after.relative_to(head.tree)
    ignored = ask("check-ignore", "--quiet", str(below), folder=head.tree).returncode == 0
    return not ignored and not any(below.is_relative_to(path) for path in submodules.empty(base.tree))


def _module_file(side: Side, name: str) -> Path | None:
    """The file that a side imports a module from, looked for and not imported."""
    for root in side.roots:
        path = Path(root, *name.split("."))
        for file in (path / "__init__.py", path.with_name(f"{path.name}.py"), *path.parent.glob(f"{path.name}.*.so")):
            if file.exists():
                return file
    return None


def _causes(side: Side, reason: str) -> Iterator[str]:
    """What is known to be amiss, the likeliest first."""
    named = list(_named(side, reason))
    for path in named if side.revision is not None else ():
        depth = len(side.folder.relative_to(side.tree).parts)
        users = [Path.cwd(), *Path.cwd().parents][depth] / path  # in the user's own work tree
        if users.is_file() and not (side.tree / path).exists():
            source, folder = shlex.quote(str(users)), shlex.quote(str(path.parent))
            yield f"'{path}' is not in this commit: --prepare \"mkdir -p {folder} && cp {source} {folder}\""
    pointers = _pointers(side.tree)
    if stubs := [str(path) for path in named if str(path) in pointers]:
        yield _of_pointers(stubs)
    if empty := submodules.empty(side.tree):
        command = "git submodule update --init --recursive"
        how = f"--prepare '{command}'" if side.revision is not None else command
        yield f"submodule {_list(empty)} is not checked out: {how}"
    if pointers:
        yield _of_pointers(pointers)


def _named(side: Side, reason: str) -> Iterator[Path]:
    """The paths that a reason speaks of, below the top of the side's tree."""
    for word in re.findall(r"[^\s'\"\[\](),:;]+", reason):
        path = Path(os.path.normpath(side.folder / word[:LONGEST]))
        if path.is_relative_to(side.tree) and path != side.tree:
            yield path.relative_to(side.tree)


def _pointers(tree: Path) -> list[str]:
    """Files that git-lfs has not fetched."""
    lines = ask("grep", "--files-with-matches", "--max-count=1", f"^{POINTER}", folder=tree).stdout.splitlines()
    return [line for line in lines if (tree / line).stat().st_size < 1024]


def _of_pointers(paths: list[str]) -> str:
    return f"{_list(paths)} is a pointer of git-lfs, not the file: git lfs fetch --all, or fetch it with --prepare"


def _list(paths: list[str]) -> str:
    return ", ".join(f"'{path}'" for path in paths[:NAMED]) + (", …" if len(paths) > NAMED else "")
