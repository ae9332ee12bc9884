"""A run as a merge sees it: launches, records, peaks and marks by their content, each once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from mixprof.data import run_folder
from mixprof.data.case import Case
from mixprof.data.errors import UsageError
from mixprof.data.json import decode, digest, to_builtins
from mixprof.data.launch import Launch, LaunchEnvironment
from mixprof.data.manifest import Checked, Manifest, Origin, Peaks
from mixprof.data.record import SCHEMA, Record
from mixprof.plan.shards import missing
from mixprof.run.merging.checks import refuse_edited, refuse_other_sweep

T = TypeVar("T")


@dataclass
class Part:
    """A run, or several of one testbed."""

    manifest: Manifest
    launches: dict[Case, dict[str, Launch]] = field(default_factory=dict)  # by the digest of their content, as records
    records: dict[Case, dict[str, Record]] = field(default_factory=dict)
    peaks: list[Peaks] = field(default_factory=list)
    checked: list[Checked] = field(default_factory=list)


def read(folder: Path) -> Part:
    """A run folder. Its launches are marked with where they come from, unless an earlier merge did so."""
    manifest = run_folder.read_manifest(folder)
    schema = json.loads((folder / run_folder.MANIFEST).read_bytes())["schema"]
    if schema != SCHEMA:
        raise UsageError(
            f"got '{folder}' of schema {schema}, expected {SCHEMA}: runs of different schemas do not merge"
        )
    name = digest(to_builtins(manifest))
    origin = Origin(manifest.created, manifest.environment.informing, manifest.sweep.shards)
    part = Part(manifest if manifest.origins else replace(manifest, origins={name: origin}))
    part.peaks, part.checked = run_folder.read_peaks(folder), list(run_folder.read_crosscheck(folder).values())
    for case, launch in run_folder.read_launches(folder):
        _add(part.launches, case, _marked(launch, name))
    for record in run_folder.read_records(folder):
        # Those of the journal, not copies of them: a launch takes tens of kilobytes.
        launches = tuple(_add(part.launches, record.case, _marked(each, name)) for each in record.launches)
        environment = _from(name, record.environment)
        _add(part.records, record.case, replace(record, launches=launches, environment=environment))
    return part


def _add(table: dict[Case, dict[str, T]], case: Case, value: T) -> T:
    """The value, or the equal one that is there already."""
    return table.setdefault(case, {}).setdefault(digest(to_builtins(value)), value)


def _marked(launch: Launch, name: str) -> Launch:
    return replace(launch, environment=_from(name, launch.environment))


def _from(name: str, environment: LaunchEnvironment) -> LaunchEnvironment:
    return environment if environment.origin else replace(environment, origin=name)


def together(group: Mapping[str, Part]) -> Part:
    """The runs of one testbed, by their folders, as one. UsageError for those of another sweep or edited models."""
    refuse_other_sweep({name: part.manifest for name, part in group.items()})
    parts = list(group.values())
    merged = Part(_manifest([part.manifest for part in parts]))
    for part in parts:
        for case, launches in part.launches.items():
            merged.launches.setdefault(case, {}).update(launches)
        for case, records in part.records.items():
            merged.records.setdefault(case, {}).update(records)
    for records in merged.records.values():
        refuse_edited(list(records.values()))
    peaks = _sorted([each for part in parts for each in part.peaks])
    merged.peaks = list({(each.device, each.dtype): each for each in peaks}.values())
    merged.checked = list(
        {each.case: each for each in _sorted([one for part in parts for one in part.checked])}.values()
    )
    return merged


def _sorted(values: list[T]) -> list[T]:
    """In an order of their own: of several of one key the same one is the last."""
    return sorted(values, key=lambda value: json.dumps(to_builtins(value), sort_keys=True))


def _manifest(manifests: list[Manifest]) -> Manifest:
    """The manifest of several runs of one testbed and one sweep, in a normal form."""
    first = manifests[0]
    origins = _joined([manifest.origins or {} for manifest in manifests])
    shards = {shard for each in manifests for shard in each.sweep.shards or ()}
    whole = any(each.sweep.shards is None for each in manifests) or not missing(shards)
    common = set.intersection(*(set(map(_item, one.informing.items())) for one in origins.values()))
    merged = replace(
        first,
        sweep=replace(first.sweep, shards=None if whole else tuple(sorted(shards))),
        measure={**first.measure, "timeout": max(each.measure.get("timeout", 0) for each in manifests)},
        environment=replace(first.environment, informing=dict(map(json.loads, common))),
        artifacts=_joined([each.artifacts for each in manifests]),
        models=_joined([each.models or {} for each in manifests]),
        commit=first.commit if all(each.commit == first.commit for each in manifests) else None,
        created=min((one.created for one in origins.values() if one.created), default=None),
        origins=origins,
    )
    return decode(json.loads(json.dumps(to_builtins(merged), sort_keys=True)), Manifest)


def _item(item: tuple[str, object]) -> str:
    return json.dumps(item)


def _joined(tables: list[dict[str, T]]) -> dict[str, T]:
    return {name: value for table in tables for name, value in table.items()}
