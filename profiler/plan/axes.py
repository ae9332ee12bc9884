"""Axes and sweep files to cases. Runs nothing, imports no model."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixprof import lowerings
from mixprof.data.errors import UsageError
from mixprof.data.parsing import nearest, parse_bytes, parse_resolution
from mixprof.data.types import Case
from mixprof.plan import files

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DTYPES = ("float32", "tf32", "float16", "bfloat16")
LAYOUTS = ("contiguous", "channels_last")
MODES = ("hot", "cold")


@dataclass(frozen=True)
class Source:
    """Where a model comes from and what it can be asked for, without importing it here."""

    factory: str  # "module:function", called in a worker
    arguments: dict[str, Any]  # what it is called with besides the case's own values
    accepts: tuple[str, ...]  # of "resolution", "window", "batch", "channels", "lowering"
    kind: str  # "mixer", "network", "file" or "call"
    specialize: str | None = None  # "module:function" that turns a loaded module into its form for a lowering
    user: bool = False  # imported from the current folder
    check: Callable[..., str | None] = field(default=lambda **_: None, compare=False)  # why values are impossible
    artifact: files.Artifact | None = None  # the file that it is, in a factory's place
    facts: dict[str, Any] = field(default_factory=dict, compare=False)  # of a registered model: see models.facts


@dataclass(frozen=True)
class Planned:
    """A case with its model's source; `reason` says why the case cannot be, if it cannot."""

    case: Case
    source: Source
    reason: str | None = None


@dataclass(frozen=True)
class Axes:
    """A product of experiments. None stands for the default of the model or the device."""

    models: tuple[str, ...] = ()
    lowerings: tuple[str, ...] | None = None
    devices: tuple[str, ...] | None = None
    dtypes: tuple[str, ...] | None = None
    layouts: tuple[str, ...] = ("channels_last",)
    modes: tuple[str, ...] = ("hot",)
    batches: tuple[int, ...] | None = None
    resolutions: tuple[tuple[int, int], ...] | None = None
    windows: tuple[int, ...] = (7,)
    channels: tuple[int, ...] = (96,)


@dataclass(frozen=True)
class Measure:
    """How every case of a run is measured."""

    launches: int | None = None  # None: 3, or 1 with quick, or 8 with publication
    quick: bool = False
    publication: bool = False
    seconds: float | None = None  # of sampling in a launch's steady state at most; None: 10, or 1 with quick
    timeout: float = 600.0  # seconds for one launch, building included
    seed: int = 0
    threads: int | None = None
    allocator: str = "pinned"
    energy: bool = False  # joules per image, some seconds more a launch
    layers: bool = False  # one more launch per engine or eager case, for where its time goes
    max_lost_cpu: float = 0.1  # share of a launch's CPU time that others may take before it is repeated
    max_memory: int | None = None  # bytes that a launch may use beyond what an idle worker has

    @property
    def rounds(self) -> int:
        return self.launches or (1 if self.quick else 8 if self.publication else 3)


def _positive(text: str | int) -> int:
    if isinstance(text, bool) or not re.fullmatch(r"[1-9]\d*", str(text).strip()):
        raise ValueError("a whole number from 1 up")
    return int(text)


def _one_of(values: Sequence[str]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in values:
            raise ValueError("one of " + ", ".join(values))
        return text

    return parse


def _device(text: str) -> str:
    if not isinstance(text, str) or not re.fullmatch(r"cpu|cuda:\d+", text):
        raise ValueError("cpu or cuda:N")
    return text


def _name(text: str) -> str:
    if not isinstance(text, str) or not text:
        raise ValueError("a name")
    return text


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _seconds(value: str | float) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = 0.0
    if isinstance(value, bool) or not 0 < seconds < 1e9:
        raise ValueError("a number of seconds above 0")
    return seconds


def _share(value: str | float) -> float:
    try:
        share = float(value)
    except (TypeError, ValueError):
        share = -1.0
    if isinstance(value, bool) or not 0 <= share <= 1:
        raise ValueError("a share from 0 to 1")
    return share


def _seed(text: str | int) -> int:
    if isinstance(text, bool) or not re.fullmatch(r"\d{1,18}", str(text).strip()):
        raise ValueError("a whole number from 0 up")
    return int(text)


MEASURE_PARSERS: dict[str, Callable[[Any], Any]] = {
    "launches": _positive,
    "quick": _switch,
    "publication": _switch,
    "seconds": _seconds,
    "timeout": _seconds,
    "seed": _seed,
    "threads": _positive,
    "allocator": _one_of(("pinned", "system")),
    "energy": _switch,
    "layers": _switch,
    "max_lost_cpu": _share,
    "max_memory": parse_bytes,
}

PARSERS: dict[str, Callable[[Any], Any]] = {
    "models": _name,
    "lowerings": _name,
    "devices": _device,
    "dtypes": _one_of(DTYPES),
    "layouts": _one_of(LAYOUTS),
    "modes": _one_of(MODES),
    "batches": _positive,
    "resolutions": parse_resolution,
    "windows": _positive,
    "channels": _positive,
}


def parse_axis(name: str, value: object, where: str) -> tuple[Any, ...]:
    """One axis from "1,2,4", a number or a list; `where` names its place in an error."""
    items: list[Any] = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    parsed = []
    for item in items:
        item = item.strip() if isinstance(item, str) else item
        try:
            parsed.append(PARSERS[name](item))
        except ValueError as error:
            raise UsageError(f"{where}: got {item!r}, expected {error}") from None
    if not parsed:
        raise UsageError(f"{where}: got an empty list, expected at least one value")
    return tuple(parsed)


def read_sweep(path: Path, overrides: dict[str, tuple[Any, ...]]) -> tuple[list[Axes], Measure]:
    """The groups and measuring settings of a sweep file; axes in `overrides` replace those of every group."""
    try:
        text = path.read_text()
        content = tomllib.loads(text)
    except OSError as error:
        raise UsageError(f"got '{path}', expected a readable sweep file ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: got invalid TOML ({error}); see README, 'Sweep files'") from error
    _refuse_unknown(content, ("group", "measure"), path, text)
    groups, measure = content.get("group", []), content.get("measure", {})
    if not isinstance(groups, list) or not groups or not all(isinstance(group, dict) for group in groups):
        raise UsageError(f"{path}: got no [[group]], expected at least one such table with axes in it")
    if not isinstance(measure, dict):
        raise UsageError(f"{path}: got measure = {measure!r}, expected a table [measure]")
    axes = []
    for group in groups:
        _refuse_unknown(group, tuple(PARSERS), path, text)
        named = {
            name: parse_axis(name, value, f"{path}:{_line_of(name, text)}: {name}") for name, value in group.items()
        }
        axes.append(Axes(**{**named, **overrides}))
    return axes, read_measure(measure, path, text)


def read_measure(table: dict[str, Any], path: Path, text: str) -> Measure:
    """The [measure] table of a sweep file."""
    _refuse_unknown(table, tuple(MEASURE_PARSERS), path, text)
    parsed = {}
    for name, value in table.items():
        try:
            parsed[name] = MEASURE_PARSERS[name](value)
        except ValueError as error:
            raise UsageError(f"{path}:{_line_of(name, text)}: {name}: got {value!r}, expected {error}") from None
    return Measure(**parsed)


def _refuse_unknown(table: dict[str, Any], known: tuple[str, ...], path: Path, text: str) -> None:
    for key in table:
        if key not in known:
            line = _line_of(key, text)
            raise UsageError(f"{path}:{line}: got key '{key}', expected {nearest(key, known)}")


def _line_of(key: str, text: str) -> int:
    """The line that a key stands on, 1 if it is not found."""
    pattern = re.compile(rf"""^\s*(\[\[?\s*)?["']?{re.escape(key)}["']?\s*[=.\]]""")
    return next((number for number, line in enumerate(text.splitlines(), 1) if pattern.match(line)), 1)


def expand(groups: Iterable[Axes], describe: Callable[[str], Source], devices: Sequence[str]) -> list[Planned]:
    """All cases of all groups, each once, in the order given.

    describe: what a model's name stands for. devices: those of this machine, the default one last.
    An impossible case keeps its reason; UsageError when a model has no possible case at all.
    """
    planned: dict[Case, Planned] = {}
    for group in groups:
        if not group.models:
            raise UsageError("got no model, expected --models or a 'models' key; `mixprof models` lists them")
        for model in group.models:
            source = describe(model)
            for case in _cases_of(group, model, source, devices):
                planned.setdefault(case, plan_case(case, source))
    for model in dict.fromkeys(case.model for case in planned):
        reasons = [entry.reason for entry in planned.values() if entry.case.model == model]
        if all(reasons):
            raise UsageError(f"{model}: no valid case is left: {reasons[0]}")
    return list(planned.values())


def plan_case(case: Case, source: Source) -> Planned:
    """The case with its model's source, and with why it cannot be, if it cannot."""
    return Planned(case, source, _why_impossible(case, source))


def _why_impossible(case: Case, source: Source) -> str | None:
    if source.artifact is not None:
        return files.why_impossible(source.artifact, case)
    return source.check(resolution=case.resolution, window=case.window, channels=case.channels)


def _cases_of(axes: Axes, model: str, source: Source, machine: Sequence[str]) -> Iterable[Case]:
    """The product of a group's axes for one model. An axis that the model does not have collapses."""
    if source.artifact is not None:
        yield from _cases_of_file(axes, model, source.artifact, machine)
        return
    if source.kind == "call":  # no module, which could be lowered or moved: every axis collapses
        yield Case(model, "eager", "cpu", "float32", "contiguous", "hot", 1, (1, 1), None, None)
        return
    mixer = source.kind == "mixer"
    resolutions = axes.resolutions or ((56, 56) if mixer else (224, 224),)
    windows: tuple[int | None, ...] = axes.windows if "window" in source.accepts else (None,)
    channels: tuple[int | None, ...] = axes.channels if "channels" in source.accepts else (None,)
    for lowering, device in itertools.product(axes.lowerings or ("eager",), axes.devices or (machine[-1],)):
        dtypes = axes.dtypes or (("float32",) if device == "cpu" else ("float16",))
        # A graph runtime chooses its own memory layout: the axis would repeat one experiment.
        layouts = axes.layouts if lowerings.entry_of(lowering).layouts else axes.layouts[:1]
        product = itertools.product(dtypes, layouts, axes.modes, axes.batches or (1,), resolutions, windows, channels)
        for dtype, layout, mode, batch, resolution, window, width in product:
            yield Case(model, lowering, device, dtype, layout, mode, batch, resolution, window, width)


def _cases_of_file(axes: Axes, model: str, artifact: files.Artifact, machine: Sequence[str]) -> Iterable[Case]:
    """The same for a file, which brings its own element type and sizes; layout, window and channels collapse."""
    names = axes.lowerings or (artifact.default_lowering,)
    batches = files.batches_of(artifact, axes.batches)
    resolutions = files.resolutions_of(artifact, axes.resolutions)
    for lowering, device in itertools.product(names, axes.devices or (machine[-1],)):
        dtypes = files.dtypes_of(artifact, axes.dtypes, "float32" if device == "cpu" else "float16")
        for dtype, mode, batch, resolution in itertools.product(dtypes, axes.modes, batches, resolutions):
            yield Case(model, lowering, device, dtype, "contiguous", mode, batch, resolution, None, None)
