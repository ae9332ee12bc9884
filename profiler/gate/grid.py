"""The cases of an `ab` job: what each side can do of the same axes, and what is exactly known of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from mixprof import lowerings
from mixprof.data.errors import UsageError
from mixprof.data.pairs import Failure, Missing, Paired
from mixprof.data.types import Case
from mixprof.gate.rounds import Entry
from mixprof.gate.sides import Side
from mixprof.plan import sources
from mixprof.plan.axes import Planned, expand
from mixprof.plan.settings import Axes, parse_axis
from mixprof.run.session import Session

AXIS_OF = {
    "lowering": "lowerings",
    "device": "devices",
    "dtype": "dtypes",
    "layout": "layouts",
    "mode": "modes",
    "model": "models",
}
EXACT = ("params", "macs", "predicted_peak_bytes")  # of the counts; more of them is worse


def parse_overrides(text: Iterable[str], option: str) -> dict[str, str]:
    """["lowering=compile"] -> {"lowering": "compile"}. UsageError for a setting that a side cannot have of its own."""
    overrides = {}
    for setting in text:
        name, equals, value = setting.partition("=")
        if name not in AXIS_OF or not equals:
            raise UsageError(
                f"{option}: got '{setting}', expected one of {', '.join(AXIS_OF)} and its value, like lowering=eager"
            )
        (overrides[name],) = parse_axis(AXIS_OF[name], [value], option)
        if name == "lowering":
            lowerings.parse(value)
    return overrides


def of_side(groups: Sequence[Axes], side: Side, asked: Session) -> dict[Case, Planned]:
    """Plan what a side would run, by the case before its own settings: the other side's are looked up there."""
    for name in (name for group in groups for name in group.lowerings or ()):
        lowerings.parse(name)
    devices = asked.machine().devices
    planned: dict[Case, Planned] = {}
    for group, model in [(axes, name) for axes in groups for name in axes.models]:
        try:
            entries = expand([replace(group, models=(model,))], asked.describe, devices)
            source = asked.describe(side.overrides.get("model", model))
        except UsageError as error:
            lowering = (group.lowerings or ("eager",))[0]
            case = Case(model, lowering, "cpu", "float32", "channels_last", "hot", 1, (0, 0), None, None)
            planned[case] = Planned(case, sources.ANCHOR, str(error))
            continue
        for entry in entries:
            case = replace(entry.case, **side.overrides)  # type: ignore[arg-type]
            planned[entry.case] = Planned(case, source, entry.reason, entry.layout_is_default)
    return planned


@dataclass(frozen=True)
class Grid:
    """The pairs of cases, what HEAD lacks of BASE, and a note for everything else."""

    entries: list[Entry]
    missing: list[Missing]
    notes: list[str]


def match(base: Mapping[Case, Planned], head: Mapping[Case, Planned]) -> Grid:
    """Pair the cases of both sides. UsageError for a model that neither has."""
    grid = Grid([], [], [])
    broken = {case.model: entry.reason for case, entry in head.items() if case.resolution == (0, 0)}
    new = {case.model: entry.reason for case, entry in base.items() if case.resolution == (0, 0)}
    for model in broken:
        if model in new:  # a typing error more often than a model that is broken on both sides
            raise UsageError(broken[model] or model)
    for case, planned in base.items():
        if planned.reason is not None:
            if case.model not in new:
                grid.notes.append(f"{case.label()} is not compared: BASE cannot run it ({planned.reason})")
            continue
        other = head.get(case)
        if other is None or other.reason is not None:
            reason = (other.reason if other else None) or broken.get(case.model) or "HEAD has no such case"
            grid.missing.append(Missing(case, reason))
        else:
            grid.entries.append(Entry(Paired(case, planned.case, other.case), planned, other))
    for model, why in new.items():
        grid.notes.append(f"{model} is not in BASE ({why}): new, and compared with nothing")
    for case, planned in head.items():
        if case not in base and planned.reason is None and case.model not in new:
            grid.notes.append(f"{case.label()} is in HEAD alone: new, and compared with nothing")
    return grid


def count(entry: Entry, base: Session, head: Session) -> None:
    """Note the exact metrics in which the sides differ, without noise and without a device."""
    counts = [asked.count(planned.case, planned.source) for asked, planned in ((base, entry.base), (head, entry.head))]
    for side, counted in zip(("base", "head"), counts, strict=True):
        if counted.status != "ok":
            reason = f"{side} cannot be counted: {counted.reason}"
            entry.pair.uncounted = Failure(side, counted.status, reason)
            return
    pairs = {name: (getattr(counts[0], name), getattr(counts[1], name)) for name in EXACT}
    entry.pair.exact = {name: (a, b) for name, (a, b) in pairs.items() if a is not None and b is not None and a != b}
