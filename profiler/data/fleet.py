"""A fleet: a folder with a run folder for each testbed, which never mix."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from mixprof.data.files import write_whole
from mixprof.data.json import digest, line
from mixprof.data.manifest import Manifest
from mixprof.data.record import SCHEMA
from mixprof.data.run_folder import MANIFEST
from mixprof.data.testbed import flatten

FLEET = "fleet.json"  # which tells a fleet from a folder in which somebody keeps runs


def mark(folder: Path) -> None:
    """Make a folder a fleet."""
    write_whole(folder / FLEET, line({"schema": SCHEMA}))


def is_fleet(folder: Path) -> bool:
    return (folder / FLEET).exists()


def runs_in(folder: Path) -> list[Path]:
    """The run folders of a fleet, by name; the folder itself where it is no fleet."""
    return sorted(path.parent for path in folder.glob(f"*/{MANIFEST}")) if is_fleet(folder) else [folder]


def expanded(folders: Iterable[str | Path]) -> list[Path]:
    """Run folders, each fleet among them replaced by its own."""
    return [run for folder in folders for run in runs_in(Path(folder))]


def testbed_name(manifest: Manifest) -> str:
    """ "h100-1a2b3c4d": equal for runs whose launches are replicates of one another, software included."""
    testbed = flatten(manifest.environment.testbed)
    key = digest([testbed, dict(manifest.versions), manifest.accelerator])
    words = manifest.accelerator or testbed.get("gpus[0]") or testbed.get("cpu") or "testbed"
    slug = re.sub(r"[^a-z0-9]+", "-", str(words).lower()).strip("-")[:40]
    return f"{slug or 'testbed'}-{key[:8]}"
