"""Whether each side runs its own code, and not what is installed of the repository elsewhere."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mixprof.data.errors import UsageError
from mixprof.data.git import ask
from mixprof.data.imports import Imports, Module, together
from mixprof.gate.git import work_trees
from mixprof.gate.module_path import BELOW_PROJECT, PROJECT, installed_from
from mixprof.gate.sides import Side, has_registered
from mixprof.gate.submodules import LINK
from mixprof.plan.axes import Source

PACKAGES = ("site-packages", "dist-packages")
NAMED = 4  # modules in a message, at most
PREPARE = "--prepare 'pip install -e .'"


@dataclass(frozen=True)
class Ownership:
    """Tells what belongs to which side of an `ab` job. Without a revision among the sides, nothing has to."""

    sides: tuple[Side, Side]  # BASE, HEAD
    passed: set[tuple[str, Imports]] = field(default_factory=set)  # looked at before, and good

    @property
    def matters(self) -> bool:
        return any(side.revision is not None for side in self.sides)

    def refuse_strays(self, side: Side, imports: Iterable[Imports]) -> None:
        """Raise UsageError for code of the repository that a side imported from outside its own tree."""
        if not self.matters or side.name.startswith("python:"):
            return
        new = {imported for imported in imports if (str(side.tree), imported) not in self.passed}
        for imported in together(new).values():
            strays = [module for module in imported.modules if self._is_stray(side, module, imported.model)]
            if strays:
                raise UsageError(self._of_strays(side, imported.model, strays))
        self.passed.update((str(side.tree), imported) for imported in new)

    def refuse_same_code(self, base: Iterable[Imports], head: Iterable[Imports]) -> None:
        """Raise UsageError for a model that both sides import from one place, which is in the tree of neither."""
        if self._differ_otherwise:
            return
        both: list[Mapping[str, Imports]] = [together(base), together(head)]
        for model in both[0].keys() & both[1].keys():
            modules = [
                (side, module) for side, of in zip(self.sides, both, strict=True) for module in of[model].modules
            ]
            if not any(self.is_own(side, module) for side, module in modules):
                own = both[0][model].own
                where = f"from {own.file}" if own else "from the standard library"
                raise UsageError(
                    f"'{model}' comes {where} on both sides and uses nothing of either tree: the same code twice, "
                    f"expected a model of this repository; {PREPARE} installs each side's own"
                )

    def of_no_tree(self, sources: Mapping[str, Source]) -> list[str]:
        """A note for each model that is in no repository of a user's. UsageError for a file that is outside of both."""
        if self._differ_otherwise:
            return []
        for model, source in sources.items():
            if source.artifact is not None and Path(model).is_absolute():
                raise UsageError(f"got '{model}', one file for both sides, expected its path from the current folder")
        ours = [model for model, source in sources.items() if not source.user and source.artifact is None]
        if all(has_registered(side.tree) for side in self.sides):
            ours = [model for model in ours if model.startswith("timm:")]
        owner = {model: "timm's as it is installed" if model.startswith("timm:") else "mixprof's own" for model in ours}
        return [f"{model} is {owner[model]}: the same code on both sides" for model in ours]

    @property
    def _differ_otherwise(self) -> bool:
        """Whether the sides are not to differ in code, or not in that alone."""
        first, second = self.sides
        return not self.matters or first.python != second.python or bool(first.overrides or second.overrides)

    def is_own(self, side: Side, module: Module) -> bool:
        """Whether a module lies in a side's tree, or in the environment that was made for it."""
        file = Path(module.file).resolve()
        if side.environment is not None and file.is_relative_to(side.environment.resolve()):
            return True
        return self._owner(file) == side.tree.resolve()

    def lacks(self, side: Side, imports: Imports) -> bool:
        """Whether a model's module is in the other side's tree, and not in this one, which got it from elsewhere."""
        own, (other,) = imports.own, [one for one in self.sides if one is not side] or [side]
        if own is None or not own.root or not self.matters or self.is_own(side, own):
            return False
        return not self._provided(side, own) and bool(self._provided(other, own))

    def _is_stray(self, side: Side, module: Module, model: str) -> bool:
        if self.is_own(side, module):
            return False
        file = Path(module.file).resolve()
        if self._owner(file) is not None or self._was_installed_from_here(file):
            return True
        provided = [path for one in self.sides for path in self._provided(one, module)]
        is_the_models = f"{model}.".startswith(f"{module.name}.")
        # What is installed of a part that does not differ hides no difference: a vendored package that nobody uses.
        return bool(provided) and (is_the_models or any(self._differs(path) for path in provided))

    @cached_property
    def _trees(self) -> list[Path]:
        """Every work tree of the repository, the innermost first."""
        here = next(side.tree for side in self.sides if side.revision is not None)
        trees = {tree.resolve() for tree in (*work_trees(here), *(side.tree for side in self.sides))}
        return sorted(trees, key=lambda tree: -len(tree.parts))

    def _owner(self, file: Path) -> Path | None:
        """The work tree that a file belongs to; None for what is installed below one, or is another repository's."""
        tree = next((tree for tree in self._trees if file.is_relative_to(tree)), None)
        if tree is None or any(part in PACKAGES for part in file.relative_to(tree).parts):
            return None
        for folder in file.parents[: len(file.relative_to(tree).parts) - 1]:
            if (folder / ".git").exists():
                link = ask("ls-files", "--stage", "--", str(folder.relative_to(tree)), folder=tree).stdout
                return tree if link.startswith(LINK) else None
        return tree

    def _was_installed_from_here(self, file: Path) -> bool:
        """Whether pip noted that it installed this file from a folder of the repository."""
        packages = next((folder for folder in file.parents if folder.name in PACKAGES), None)
        if packages is None:
            return False
        line = f"{file.relative_to(packages)},"
        records = installed_from(self._trees, packages)
        return any(line in record.read_text(errors="replace") for record in records if record.exists())

    def _provided(self, side: Side, module: Module) -> list[Path]:
        """Where a side's tree has this module, below the top of the tree."""
        if not module.root:
            return []
        places = [*map(Path, side.roots), *self._projects[side is self.sides[1]]]
        files = [root / module.below_root for root in places]
        return list({file.relative_to(side.tree): None for file in files if file.exists()})

    @cached_property
    def _projects(self) -> tuple[list[Path], ...]:
        """The folders in which the projects of each side's tree keep packages."""
        return tuple(_folders_of_projects(side.tree) for side in self.sides)

    def _differs(self, path: Path) -> bool:
        """Whether a package, or a module that is none, is not the same on both sides."""
        path = path.parent if path.name.startswith("__init__.") else path
        commits = [side.revision for side in self.sides if side.revision is not None]
        tree = next((side.tree for side in self.sides if side.revision is None), self.sides[0].tree)
        if ask("diff", "--quiet", *commits, "--", str(path), folder=tree).returncode:
            return True
        others = ask("ls-files", "--others", "--exclude-standard", "--", str(path), folder=tree)
        return len(commits) == 1 and bool(others.stdout)

    def _of_strays(self, side: Side, model: str, strays: list[Module]) -> str:
        """One line: what came from where, and what to do."""
        names = ", ".join(f"{module.name} from {module.file}" for module in strays[:NAMED])
        more = f" and {len(strays) - NAMED} more" if len(strays) > NAMED else ""
        folders = dict.fromkeys(folder for module in strays if (folder := self._folder(side, module)))
        named = "".join(f" --pythonpath {folder}" for folder in folders)
        which = "BASE" if side is self.sides[0] else "HEAD"
        return (
            f"'{model}' of {which}, {side.words}, imports {names}{more}, expected its own tree's: "
            f"name the folder of its packages with{named or ' --pythonpath DIR'}, or install each side with {PREPARE}"
        )

    def _folder(self, side: Side, module: Module) -> str | None:
        """The folder, from the side's own, that would have given the tree's module."""
        owner = self._owner(Path(module.file).resolve())
        like = [Path(module.file).relative_to(owner)] if owner and Path(module.file).is_relative_to(owner) else []
        for path in (*like, *self._provided(side, module)):
            root = Path(str(side.tree / path).removesuffix(module.below_root))
            if module.root and (side.tree / path).exists() and str(root) not in side.roots:
                return os.path.relpath(root, side.folder)
        return None


def _folders_of_projects(tree: Path) -> list[Path]:
    files = ask("ls-files", "--", *(f"*{name}" for name in PROJECT), folder=tree).stdout.splitlines()
    folders = dict.fromkeys((tree / file).parent for file in files if Path(file).name in PROJECT)
    return [folder / below for folder in folders for below in BELOW_PROJECT]
