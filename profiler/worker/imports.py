"""What a worker tells of the code that it imported for a user's model, and where it looks for that code."""

from __future__ import annotations

import functools
import inspect
import os
import sys
import sysconfig
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

ROOTS = "MIXPROF_ROOTS"  # variable of a worker's environment: folders that user code is imported from, the first wins
OURS = ("__main__", "__mp_main__", "mixprof")
FINDERS = ("__editable__", "_editable_impl_", "__editables_")  # installed in the place of a package, without its code


def roots() -> list[str]:
    """The folders that come before everything else; the current one where nothing says so."""
    return os.environ[ROOTS].split(os.pathsep) if os.environ.get(ROOTS) else [os.getcwd()]


def imported(source: dict[str, Any]) -> dict[str, Any]:
    """The module of a source's factory, and [name, file, root] of everything that this process has imported.

    Each package is named once for each folder that parts of it came from. The standard library is left out.
    """
    arguments = source["arguments"] if source["kind"] == "call" else {}
    name, _, attribute = source["factory"].partition(":")
    name, attribute = arguments.get("module", name), arguments.get("function", attribute)
    files = _files()
    return {"model": name, "modules": [*_own(name, attribute, files), *_groups(files)]}


def _own(name: str, attribute: str, files: dict[str, str]) -> list[list[str]]:
    """The factory's module, and the code of the factory where that is in a file of no module."""
    own = [[name, files[name], _root(name, files[name])]] if name in files else []
    code = _code(getattr(sys.modules.get(name), attribute, None))
    if code is not None and os.path.isabs(code.co_filename) and code.co_filename not in files.values():
        own.append([f"{name}:{attribute}", code.co_filename, ""])
    return own


def _code(function: Any) -> CodeType | None:
    """The code of a factory, its decorators and bound arguments taken off."""
    while isinstance(function, functools.partial):
        function = function.func
    try:
        function = inspect.unwrap(function)
    except ValueError:  # it wraps itself
        return None
    code = getattr(function, "__code__", None)
    return code if isinstance(code, CodeType) else None


def _groups(files: dict[str, str]) -> list[list[str]]:
    """The first module of each package in each folder, by the topmost name of the package that has a file."""
    library = sysconfig.get_path("stdlib") + os.sep
    groups: dict[tuple[str, str], list[str]] = {}
    for name in sorted(files, key=lambda name: (name.count("."), name)):
        file = files[name]
        if (
            name.partition(".")[0] in OURS
            or name.startswith(FINDERS)
            or (file.startswith(library) and "-packages" not in file)
        ):
            continue
        parts = name.split(".")
        top = next(short for end in range(1, len(parts) + 1) if (short := ".".join(parts[:end])) in files)
        root = _root(name, file)
        groups.setdefault((top, root or os.path.dirname(file)), [name, file, root])
    return list(groups.values())


def _files() -> dict[str, str]:
    """The file of each module that has one: neither built in nor a namespace."""
    modules = {name: module for name, module in list(sys.modules.items()) if isinstance(module, ModuleType)}
    # Not `module.__file__`: a module that is loaded when it is first looked at would be loaded.
    files = {name: object.__getattribute__(module, "__dict__").get("__file__") for name, module in modules.items()}
    return {
        name: os.path.abspath(file)
        for name, file in files.items()
        if isinstance(file, str) and (os.path.isabs(file) or os.path.exists(file))
    }


def _root(name: str, file: str) -> str:
    """The folder that a module's name is a path below; "" for a file whose path does not end in the name."""
    parts = name.split(".")
    path = Path(file)
    found = (
        path.parent.parts if path.name.startswith("__init__.") else (*path.parent.parts, path.name.partition(".")[0])
    )
    return str(Path(*found[: -len(parts)])) if found[-len(parts) :] == tuple(parts) else ""
