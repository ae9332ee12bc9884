"""Which runs do not go together: other settings, another sweep, edited models."""

from __future__ import annotations

from collections.abc import Mapping

from mixprof.data.errors import UsageError
from mixprof.data.manifest import Manifest
from mixprof.data.record import Record

COUNTS = ("params", "macs")
FREE = ("timeout",)  # a setting that changes no result


def refuse_unlike(manifests: Mapping[str, Manifest]) -> None:
    """UsageError for runs, by their folders, with other settings or with other content of a file or a user's code."""
    (first, expected), *others = manifests.items()
    for folder, manifest in others:
        for name in sorted({*expected.measure, *manifest.measure} - {*FREE}):
            if (got := manifest.measure.get(name)) != (other := expected.measure.get(name)):
                raise UsageError(f"got '{folder}' with {name} = {got}, expected {other} as '{first}' has")
    seen: dict[str, tuple[str, object]] = {}
    for folder, manifest in manifests.items():
        for model, content in manifest.artifacts.items():
            where, before = seen.setdefault(model, (folder, content))
            if before != content:
                raise UsageError(
                    f"got '{folder}', measured with another '{model}' than '{where}': expected models that nobody "
                    "edited between them; run one of them anew"
                )


def refuse_other_sweep(manifests: Mapping[str, Manifest]) -> None:
    """UsageError for runs of one testbed that are not of one sweep, or of models with other facts."""
    (first, expected), *others = manifests.items()
    for folder, manifest in others:
        for part in ("cases", "digest"):
            if getattr(manifest.sweep, part) != getattr(expected.sweep, part):
                raise UsageError(
                    f"got '{folder}' of a sweep of {manifest.sweep.cases} cases, expected the {expected.sweep.cases} "
                    f"of '{first}': shards of one sweep, or runs that `mixprof report` shows side by side"
                )
        for model in set(manifest.models or {}) & set(expected.models or {}):
            if (manifest.models or {})[model] != (expected.models or {})[model]:
                raise UsageError(f"got '{folder}' with another '{model}' than '{first}': expected the same models")


def refuse_edited(records: list[Record]) -> None:
    """UsageError for records of one case with other counts: its model was edited between them."""
    for name in COUNTS:
        values = {getattr(record, name) for record in records} - {None}
        if len(values) > 1:
            raise UsageError(
                f"got {name} = {', '.join(map(str, sorted(values)))} of {records[0].case.label()}, expected one: its "
                "model was edited between the runs; run one of them anew"
            )
