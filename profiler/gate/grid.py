"""The cases of an `ab` job: what each side can do of the same axes, and what is exactly known of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mixprof import lowerings
from mixprof.data.errors import UsageError
from mixprof.data.types import Case
from mixprof.gate.rounds import Entry
from mixprof.gate.sides import Side
from mixprof.plan import sources
from mixprof.plan.axes import Axes, Planned, expand
from mixprof.plan.settings import parse_axis
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


@dataclass(frozen=True)
class Missing:
    """A case that one side has and the other has not."""

    name: str
    case: Case
    side: str  # the side that lacks it
    reason: str


def parse_overrides(text: list[str], option: str) -> dict[str, str]:
    """["lowering=compile"] -> {"lowering": "compile"}. UsageError for a setting that a side cannot have of its own."""
    found = {}
    for each in text:
        name, equals, value = each.partition("=")
        if name not in AXIS_OF or not equals:
            raise UsageError(
                f"{option}: got '{each}', expected one of {', '.join(AXIS_OF)} and its value, like lowering=eager"
            )
        (found[name],) = parse_axis(AXIS_OF[name], [value], option)
        if name == "lowering":
            lowerings.parse(value)
    return found


def of_side(groups: list[Axes], side: Side, asked: Session) -> dict[Case, Planned]:
    """What a side would run, by the case before its own settings: those of the other side find it there."""
    found: dict[Case, Planned] = {}
    for name in (name for group in groups for name in group.lowerings or ()):
        lowerings.parse(name)
    devices = asked.environment()["devices"]
    for group in groups:
        for model in group.models:
            try:
                planned = expand([replace(group, models=(model,))], asked.describe, devices)
                sources_of = {name: asked.describe(side.overrides.get("model", name)) for name in (model,)}
            except UsageError as error:
                lowering = (group.lowerings or ("eager",))[0]
                case = Case(model, lowering, "cpu", "float32", "channels_last", "hot", 1, (0, 0), None, None)
                found[case] = Planned(case, sources.ANCHOR, str(error))
                continue
            for entry in planned:
                case = replace(entry.case, **side.overrides)  # type: ignore[arg-type]
                found[entry.case] = Planned(case, sources_of[model], entry.reason)
    return found


def match(base: Mapping[Case, Planned], head: Mapping[Case, Planned]) -> tuple[list[Entry], list[Missing], list[str]]:
    """The pairs of cases; what HEAD lacks of BASE; and a note for all else. UsageError for a model that neither has."""
    entries, missing, notes = [], [], []
    broken = {case.model: entry.reason for case, entry in head.items() if case.resolution == (0, 0)}
    new: dict[str, str | None] = {case.model: entry.reason for case, entry in base.items() if case.resolution == (0, 0)}
    for model in broken:
        if model in new:  # a typing error more often than a model that is broken on both sides
            raise UsageError(broken[model] or model)
    for case, planned in base.items():
        if planned.reason is not None:
            if case.model not in new:
                notes.append(f"{case.label()} is not compared: BASE cannot run it ({planned.reason})")
            continue
        other = head.get(case)
        if other is None or other.reason is not None:
            reason = (other.reason if other else None) or broken.get(case.model) or "HEAD has no such case"
            missing.append(Missing(case.label(), case, "head", reason))
        else:
            entries.append(Entry(case.label(), planned, other))
    for model, why in new.items():
        notes.append(f"{model} is not in BASE ({why}): new, and compared with nothing")
    for case, planned in head.items():
        if case not in base and planned.reason is None and case.model not in new:
            notes.append(f"{case.label()} is in HEAD alone: new, and compared with nothing")
    return entries, missing, notes


@dataclass(frozen=True)
class Exact:
    """What is known of a pair of cases from shapes alone."""

    differing: dict[str, tuple[Any, Any]]  # metric -> (base, head)
    lost: tuple[str, str] | None = None  # the side that could not be counted, and why; BASE where neither could


def exact(entry: Entry, base: Session, head: Session) -> Exact:
    """The exact metrics in which the sides differ, without noise and without a device."""
    counts = [asked.count(planned.case, planned.source) for asked, planned in ((base, entry.base), (head, entry.head))]
    for side, each in zip(("base", "head"), counts, strict=True):
        if each["status"] != "ok":
            return Exact({}, (side, f"{side} cannot be counted: {each['reason']}"))
    pairs = {name: (counts[0][name], counts[1][name]) for name in EXACT}
    return Exact({name: (a, b) for name, (a, b) in pairs.items() if a is not None and b is not None and a != b})
