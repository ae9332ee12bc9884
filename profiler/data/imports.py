"""Where the code of a user's model came from, as the process that imported it tells."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Module:
    """A package or module that was imported, by its topmost name that has a file."""

    name: str
    file: str
    root: str  # the folder that it was imported from; "" where the file is not in one that fits its name

    @property
    def below_root(self) -> str:
        """The path that an import looks for: pkg/__init__.py."""
        return self.file.removeprefix(self.root).lstrip("/")


@dataclass(frozen=True)
class Imports:
    """What one model imported; its own module comes first, if it has a file."""

    model: str  # name of the module that its factory is asked of
    modules: tuple[Module, ...]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Imports":
        return cls(values["model"], tuple(Module(*module) for module in values["modules"]))

    @property
    def own(self) -> Module | None:
        return next((module for module in self.modules if module.name == self.model), None)


def together(imports: Iterable[Imports]) -> dict[str, Imports]:
    """By model: what is imported by building and by running it is one each."""
    merged: dict[str, Imports] = {}
    for imported in imports:
        before = merged.get(imported.model, Imports(imported.model, ()))
        merged[imported.model] = Imports(imported.model, tuple(dict.fromkeys((*before.modules, *imported.modules))))
    return merged
