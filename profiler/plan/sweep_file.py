"""Sweep files, values given beside them, or both: groups of axes and measuring settings."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mixprof.data import toml
from mixprof.data.errors import UsageError
from mixprof.data.parsing import nearest
from mixprof.plan.axes import refuse_pinned
from mixprof.plan.settings import AXES, MEASURE, Axes, Measure, parse_axis

DEFAULT = Path(__file__).with_name("default_sweep.toml")


def read(file: Path | None, given: Mapping[str, object], spelled: Callable[[str], str]) -> tuple[list[Axes], Measure]:
    """Groups and settings of a sweep file, of given values by their names, or of both: a given value wins.

    spelled: a setting's name as whoever gave it writes it, for an error. Without file or axis: the default sweep.
    """
    if unknown := [name for name in given if name not in AXES and name not in MEASURE]:
        raise UsageError(f"got {spelled(unknown[0])}, expected {nearest(unknown[0], [*AXES, *MEASURE])}")
    axes = {name: parse_axis(name, value, spelled(name)) for name, value in given.items() if name in AXES}
    changed = {name: MEASURE[name].kind.parse(value, spelled(name)) for name, value in given.items() if name in MEASURE}
    groups, measure = [Axes(**axes)], Measure()
    if file is not None or not axes:
        groups, measure = read_sweep(file or DEFAULT, axes)
    if changed.get("quick") or changed.get("publication"):
        measure = replace(measure, launches=None, seconds=None, quick=False, publication=False)
    measure = replace(measure, **changed)
    if measure.quick and measure.publication:
        raise UsageError(f"got {spelled('quick')} and {spelled('publication')}, expected at most one of them")
    refuse_pinned(groups)
    return groups, measure


def read_sweep(path: Path, overrides: Mapping[str, tuple[Any, ...]]) -> tuple[list[Axes], Measure]:
    """The groups and measuring settings of a sweep file; axes in `overrides` replace those of every group."""
    try:
        text = path.read_text()
        content: dict[str, Any] = toml.decode(text)
    except OSError as error:
        raise UsageError(f"got '{path}', expected a readable sweep file ({error.strerror})") from error
    except ValueError as error:
        raise UsageError(f"{path}: got invalid TOML ({error}); see docs/axes.md, 'Sweep files'") from error
    _refuse_unknown(content, ("group", "measure"), path, text)
    groups, measure = content.get("group", []), content.get("measure", {})
    if not isinstance(groups, list) or not groups or not all(isinstance(group, dict) for group in groups):
        raise UsageError(f"{path}: got no [[group]], expected at least one such table with axes in it")
    if not isinstance(measure, dict):
        raise UsageError(f"{path}: got measure = {measure!r}, expected a table [measure]")
    for group in groups:
        _refuse_unknown(group, AXES, path, text)
    _refuse_unknown(measure, MEASURE, path, text)

    def where(name: str) -> str:
        return f"{path}:{_line_of(name, text)}: {name}"

    axes = [{name: parse_axis(name, value, where(name)) for name, value in group.items()} for group in groups]
    settings = {name: MEASURE[name].kind.parse(value, where(name)) for name, value in measure.items()}
    return [Axes(**{**group, **overrides}) for group in axes], Measure(**settings)


def _refuse_unknown(table: Mapping[str, Any], known: Iterable[str], path: Path, text: str) -> None:
    for key in table:
        if key not in known:
            raise UsageError(f"{path}:{_line_of(key, text)}: got key '{key}', expected {nearest(key, known)}")


def _line_of(key: str, text: str) -> int:
    """The line that a key stands on, 1 if it is not found."""
    pattern = re.compile(rf"""^\s*(\[\[?\s*)?["']?{re.escape(key)}["']?\s*[=.\]]""")
    return next((number for number, line in enumerate(text.splitlines(), 1) if pattern.match(line)), 1)
