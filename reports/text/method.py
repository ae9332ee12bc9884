"""How and where it was measured, for a reader who wants to judge the numbers."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from mixprof.data.case import ANCHORS
from mixprof.data.json import to_builtins
from mixprof.data.manifest import Manifest
from mixprof.reports.answers import Answers
from mixprof.reports.answers.ratios import METHOD
from mixprof.reports.text.markdown import Section, Table, bullets, section

Manifests = Mapping[str, Manifest]  # of each run by its name
INTERVALS = {
    "launches": "a 95 % t interval over the logarithms of the launches' medians, around their geometric mean",
    "within-launch": "a 95 % interval within the only launch, widened by an assumed slow drift of the machine; "
    "it says nothing of how another launch would differ",
}


def method(answers: Answers, manifests: Manifests) -> list[Section]:
    """The section on launches, intervals, ratios and counts, with the settings of each run."""
    ok = answers.cases[(answers.cases["status"] == "ok") & answers.cases["latency_ms"].notna()]
    launches = ", ".join(str(count) for count in sorted(ok["launches"].unique()))
    items = [f"Launches (processes) per case: {launches}."] if launches else []
    for name, words in INTERVALS.items():
        if count := int((ok["interval"] == name).sum()):
            items.append(f"Interval of {count} of the {len(ok)} ok cases: {words}.")
    if count := int(ok["interval"].isna().sum()):
        items.append(f"{count} cases have no interval: one launch with too few samples.")
    items += [
        METHOD,
        "A multiply-accumulate is 2 FLOPs; counts are of one forward, batch included.",
        f"`{'` or `'.join(ANCHORS)}` is a fixed mix of work, timed under the same lowering, device and dtype.",
    ]
    if inexact := uncounted(answers.cases):
        items.append(f"Counts marked ≥ are at least that, since these operations are not counted: {inexact}.")
    return section("How it was measured", bullets(items), *side_by_side(sides(manifests, "measure")))


def environment(manifests: Manifests) -> list[Section]:
    """The section on the machines, a column per run."""
    tables = side_by_side(sides(manifests, "environment", "versions"))
    return section("Environment", *tables) or section("Environment", "None was recorded.")


def uncounted(frame: pd.DataFrame) -> str:
    """The operations whose multiply-accumulates are not counted, in any case."""
    names = {name for names in frame["uncounted_ops"].dropna() for name in names.split(", ") if name}
    return ", ".join(f"`{name}`" for name in sorted(names))


def sides(manifests: Manifests, *parts: str) -> dict[str, dict[str, str]]:
    """The value of each setting in these parts of the manifests, by its dotted name and run."""
    flat = {
        run: {name: value for part in parts for name, value in _flat(part, to_builtins(getattr(manifest, part)))}
        for run, manifest in manifests.items()
    }
    names = dict.fromkeys(name for settings in flat.values() for name in settings)
    return {name: {run: settings.get(name, "") for run, settings in flat.items()} for name in names}


def differing(settings: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The names of the settings in which runs differ."""
    return [name for name, values in settings.items() if len(set(values.values())) > 1]


def side_by_side(settings: Mapping[str, Mapping[str, str]]) -> list[Table]:
    """A table with a line a setting and a column a run; nothing without settings."""
    differ = set(differing(settings))
    rows = tuple({"setting": name, **values} for name, values in settings.items())
    return [Table(rows, frozenset(n for n, name in enumerate(settings) if name in differ))] if rows else []


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(f"{prefix}.{name}", inner)
    else:
        missing = "not set" if prefix.startswith("measure.") else "unknown"
        yield prefix, missing if value is None else str(value)
