"""A digest of the code of each user's model: runs of other code do not go together."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from mixprof.data.imports import Imports, Module, together
from mixprof.plan.axes import Planned


def digests(planned: Iterable[Planned], imports: Iterable[Imports]) -> dict[str, str]:
    """By a model's name, the digest of what its module and those below the current folder hold, names included."""
    by_module = together(imports)
    digests: dict[str, str] = {}
    for entry in planned:
        source = entry.source
        module = source.arguments["module"] if source.kind == "call" else source.factory.partition(":")[0]
        if source.user and entry.case.model not in digests and module in by_module:
            digests[entry.case.model] = _digest(by_module[module])
    return digests


def _digest(imports: Imports) -> str:
    here = os.getcwd() + os.sep
    mine = {one for one in imports.modules if one == imports.own or one.file.startswith(here)}
    hashed = hashlib.sha256()
    for module in sorted(mine, key=lambda each: each.name):
        for path in _files(module):
            hashed.update(f"{module.name} {path.name} ".encode() + hashlib.sha256(path.read_bytes()).digest())
    return hashed.hexdigest()


def _files(module: Module) -> list[Path]:
    """A module's file, or every source below a package's folder."""
    file = Path(module.file)
    if "site-packages" in file.parts:
        return []
    files = sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]
    return [path for path in files if path.is_file()]
