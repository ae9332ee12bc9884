"""Check that what the code calls of torch, pynvml and cuda.bindings is there, and takes what it is given.

    python scripts/signatures.py                                     # as this interpreter has them
    for each in oldest newest; do $each/bin/python scripts/signatures.py; done   # as other environments have them

Ends with 1 where a name is missing or a call does not fit; a package that is not installed is said and passed over.
Of the standard library alone, so that any environment can run it. TensorRT's names: tests/test_tensorrt_api.py.
"""

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1] / "profiler"
PACKAGES = {"torch": "torch", "pynvml": "pynvml", "cuda": "cuda.bindings.driver"}
# What stands for a package in a file; a name of NVML's is handed to `_ask` as text.
ALIASES = {"torch": "torch", "pynvml": "pynvml", "nvml": "pynvml", "cuda": "cuda", "_cuda": "cuda"}
PREFIXES = {"pynvml": "nvml|NVML", "cuda": "cu[A-Z]|CU"}


@dataclass(frozen=True)
class Use:
    """A name of a package, and how it is called, if it is."""

    package: str
    name: str  # "cuda.set_device"
    where: str
    arguments: tuple[int, tuple[str, ...]] | None = None  # of a call: how many without a name, and the names


def uses(path: Path) -> Iterator[Use]:
    """The names of the packages that a file uses."""
    tree = ast.parse(path.read_text())
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    guarded = {text.value for text in ast.walk(tree) if isinstance(text, ast.Constant) and isinstance(text.value, str)}
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        where = f"{path.relative_to(ROOT.parent)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Attribute) and id(node) not in inner:
            package, name = _dotted(node)
            if package and name.rpartition(".")[2] not in guarded:  # asked for by hasattr or getattr first
                yield Use(package, name, where, _arguments(calls.get(id(node))))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_ask":
            function = node.args[1]
            if isinstance(function, ast.Constant):
                yield Use("pynvml", str(function.value), where, (len(node.args) - 2, ()))


def _dotted(node: ast.Attribute) -> tuple[str, str]:
    """The package and the name below it of an attribute; ("", "") for one of something else."""
    parts: list[str] = []
    place: ast.expr = node
    while isinstance(place, ast.Attribute):
        parts.insert(0, place.attr)
        place = place.value
        if isinstance(place, ast.Attribute) and place.attr == "_cuda":
            place = ast.Name("cuda")
    name = ".".join(parts)
    package = ALIASES.get(place.id, "") if isinstance(place, ast.Name) else ""
    # pycuda, too, is called `cuda` somewhere: NVIDIA's names have a prefix.
    return (package, name) if package and re.match(PREFIXES.get(package, ""), name) else ("", "")


def _arguments(call: ast.Call | None) -> tuple[int, tuple[str, ...]] | None:
    """How a call calls; None for none, and for one with stars, which nobody can count."""
    if call is None or any(isinstance(each, ast.Starred) for each in call.args):
        return None
    names = [keyword.arg for keyword in call.keywords]
    return None if None in names else (len(call.args), tuple(name for name in names if name))


def trouble(use: Use, module: Any) -> str | None:
    """What is wrong with a use of an imported package; None when all is well, or nobody can tell."""
    value = module
    for part in use.name.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            try:
                value = importlib.import_module(f"{value.__name__}.{part}")
            except (AttributeError, ImportError):
                return f"{use.where}: {use.package} has no {use.name}"
    if use.arguments is None:
        return None
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):  # of a compiled function
        return None
    count, names = use.arguments
    try:
        signature.bind(*[None] * count, **dict.fromkeys(names))
    except TypeError as error:
        return f"{use.where}: {use.package}.{use.name}{signature}: {error}"
    return None


def check() -> tuple[dict[str, int], list[str]]:
    """How many uses of each installed package were looked at, and what is wrong with them."""
    every = [use for path in sorted(ROOT.rglob("*.py")) for use in uses(path)]
    counts, troubles = {}, []
    for package, name in PACKAGES.items():
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        own = [use for use in every if use.package == package]
        counts[f"{package} {getattr(module, '__version__', '')}".strip()] = len(own)
        troubles += [each for use in own if (each := trouble(use, module))]
    return counts, sorted(set(troubles))


if __name__ == "__main__":
    looked_at, wrong = check()
    print(", ".join(f"{package}: {count} uses" for package, count in looked_at.items()) or "nothing is installed")
    print("\n".join(wrong), end="\n" if wrong else "")
    sys.exit(1 if wrong else 0)
