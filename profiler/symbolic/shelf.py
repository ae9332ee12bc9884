"""Formulas that were derived before: those of the registered models come with the package, others are kept on disk.

A formula is found by what it was derived from: the sources of the model's package and of the counter, the version of
torch, the model's name with its options. A user's own module can import anything, so its formulas are not kept.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mixprof.data import cache
from mixprof.data.types import digest
from mixprof.plan.axes import Source
from mixprof.symbolic.derive import COSTS, Formulas
from mixprof.symbolic.formula import Formula

SHIPPED = Path(__file__).with_name("registered.json")
COUNTER = [Path(__file__).parents[1] / "metrics" / name for name in ("flops.py", "traffic.py")]
FORM = 1  # of the JSON below


def to_json(found: Formulas) -> dict[str, Any]:
    return {**{name: getattr(found, name).to_json() for name in COSTS}, "proven": found.proven}


def from_json(fields: dict[str, Any]) -> Formulas:
    return Formulas(**{name: Formula.from_json(fields[name]) for name in COSTS}, proven=fields["proven"])


def key(source: Source) -> str | None:
    """The name that a model's formulas are kept under; None for those that are not."""
    package = source.factory.partition(":")[0]
    if source.user or package != "mixprof.models" or source.artifact is not None:
        return None
    torch_version = importlib.metadata.version("torch").partition("+")[0]
    return digest([FORM, _sources(package), torch_version, source.arguments, list(source.accepts)])


@functools.cache
def _sources(package: str) -> str:
    """The hash of all code that decides what is counted."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    folders = spec.submodule_search_locations or []
    files = sorted(path for folder in folders for path in Path(folder).rglob("*.py"))
    whole = hashlib.sha256()
    for path in [*files, *COUNTER]:
        whole.update(path.name.encode() + b"\0" + _code(path).encode() + b"\0")
    return whole.hexdigest()


def _code(path: Path) -> str:
    """A file's syntax tree without its docstrings, which decide nothing."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


@functools.cache
def shipped() -> dict[str, Any]:
    """The formulas that come with the package, by their keys."""
    found: dict[str, Any] = json.loads(SHIPPED.read_text()) if SHIPPED.exists() else {}
    return found


def find(source: Source, ask: Callable[[], dict[str, Any]]) -> tuple[Formulas | None, str | None]:
    """A model's formulas, or the reason why it has none. ask: derives them, as the job of that name does."""
    name = key(source)
    kept = None if name is None else shipped().get(name) or _read(name)
    if kept is not None:
        return from_json(kept), None
    answer = ask()
    if answer["status"] != "ok":
        return None, answer["reason"]
    if name is not None:
        _keep(name, answer["formulas"])
    return from_json(answer["formulas"]), None


def _path(name: str) -> Path:
    return cache.folder() / "formulas" / f"{name}.json"


def _read(name: str) -> dict[str, Any] | None:
    """What is kept under a key; a file that is not whole is derived again."""
    try:
        cache.own_folder(_path(name).parent)
        found: dict[str, Any] = json.loads(_path(name).read_text())
        from_json(found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return found


def _keep(name: str, formulas: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # a plan needs no cache
        cache.write(cache.own_folder(_path(name).parent) / f"{name}.json", json.dumps(formulas).encode())
