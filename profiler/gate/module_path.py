"""The folders that a side's own code is imported from."""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

from mixprof.data.errors import UsageError

PROJECT = ("pyproject.toml", "setup.py", "setup.cfg")
BELOW_PROJECT = ("", "src", "lib", "python")  # where a project keeps its packages


def parse(folders: Sequence[str], option: str = "--pythonpath") -> tuple[str, ...]:
    """Folders relative to the current one. UsageError for one that is not: both sides would import the same from it."""
    for folder in folders:
        if not folder or Path(folder).is_absolute():
            raise UsageError(
                f"{option}: got '{folder}', expected a folder relative to the current one: each side's own"
            )
    return tuple(folders)


def roots(folder: Path, tree: Path, pythonpath: Sequence[str], detect: bool) -> tuple[str, ...]:
    """What is named, the side's folder, then `src` and the project around it, where they hold packages."""
    named = [Path(os.path.normpath(folder / name)) for name in pythonpath]
    for path in named:
        if not path.is_relative_to(tree):
            raise UsageError(f"--pythonpath: got '{path}', which is outside '{tree}', expected a folder in it")
    is_project = any((tree / name).exists() for name in PROJECT)
    around = [folder / "src", tree / "src", *([tree] if is_project else [])]
    detected = [path for path in around if _holds_packages(path)] if detect else []
    return tuple(dict.fromkeys(map(str, [*named, folder, *detected])))


def _holds_packages(folder: Path) -> bool:
    """Whether packages lie in a folder that is none itself, with nothing in it that would hide the standard library."""
    if not folder.is_dir() or (folder / "__init__.py").exists():
        return False
    names = {path.stem for path in folder.iterdir() if path.suffix == ".py" or any(path.glob("*.py"))}
    holds = any(True for pattern in ("*/*.py", "*/*/*.py") for _ in folder.glob(pattern))
    return holds and not names & (sys.stdlib_module_names - {"test"})


def installed_from(trees: Iterable[Path], packages: Path) -> Iterator[Path]:
    """The RECORD of every package in a folder of them that pip noted to have installed from one of these trees."""
    urls = [f"file://{tree}" for tree in trees]
    for note in packages.glob("*.dist-info/direct_url.json"):
        if any(url in unquote(note.read_text(errors="replace")) for url in urls):
            yield note.with_name("RECORD")
