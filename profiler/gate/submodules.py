"""Submodules of a work tree, which git leaves empty: filled from what this machine has of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mixprof.data.git import ask

LINK = "160000"  # mode of a commit of another repository in a tree


@dataclass(frozen=True)
class Submodule:
    """A folder of a work tree that is a commit of another repository."""

    folder: Path
    commit: str
    clone: Path  # git's own folder of it, below that of the repository around it; need not be there

    @property
    def is_empty(self) -> bool:
        return not self.folder.is_dir() or not any(self.folder.iterdir())


def fill(tree: Path) -> None:
    """Write the files of every submodule whose commit the user's own clone has: nothing is fetched, no hook is run."""
    for submodule in _submodules(tree):
        if not submodule.is_empty or not submodule.clone.is_dir():
            continue
        submodule.folder.mkdir(parents=True, exist_ok=True)
        index = submodule.folder.with_name(f".{submodule.folder.name}.mixprof-index")  # the clone's stays as it is
        git = partial(ask, "--git-dir", str(submodule.clone), "--work-tree", str(submodule.folder))
        where: dict[str, Any] = {"folder": submodule.folder, "variables": {"GIT_INDEX_FILE": str(index)}}
        if git("read-tree", submodule.commit, **where).returncode == 0:
            git("checkout-index", "--all", **where)
        index.unlink(missing_ok=True)


def empty(tree: Path) -> list[str]:
    """The paths of the submodules that are not checked out."""
    return [str(submodule.folder.relative_to(tree)) for submodule in _submodules(tree) if submodule.is_empty]


def _submodules(tree: Path) -> Iterator[Submodule]:
    """Those of the commit that a work tree is of, each before its own."""
    common = ask("rev-parse", "--path-format=absolute", "--git-common-dir", folder=tree)
    commit = ask("rev-parse", "HEAD", folder=tree)
    if common.returncode == 0 and commit.returncode == 0:
        yield from _below(tree, Path(common.stdout.strip()), commit.stdout.strip())


def _below(tree: Path, repository: Path, commit: str) -> Iterator[Submodule]:
    if not (tree / ".gitmodules").exists():
        return
    lines = ask("--git-dir", str(repository), "ls-tree", "-r", "-z", commit).stdout.split("\0")
    for line in lines:
        words, _, path = line.partition("\t")
        if words.startswith(LINK):
            submodule = Submodule(tree / path, words.split()[2], repository / "modules" / _name(tree, path))
            yield submodule
            if not submodule.is_empty:
                yield from _below(submodule.folder, submodule.clone, submodule.commit)


def _name(tree: Path, path: str) -> str:
    """The name of a submodule, which its clone is kept under: its path, unless it was moved."""
    lines = ask("config", "--file", ".gitmodules", "--get-regexp", r"^submodule\..*\.path$", folder=tree).stdout
    names = {key_path[1]: key_path[0] for line in lines.splitlines() if (key_path := line.split(" ", 1))}
    return names.get(path, f"submodule.{path}.path").removeprefix("submodule.").removesuffix(".path")
