"""A run folder: manifest.json, launches.jsonl (the journal), records.jsonl. Appended line by line, read back whole.

Schema 1 had no step of a case and no metrics, and left out what was not measured of a launch's memory, energy and
environment: absent, they are what they were then.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from mixprof.data.case import Case
from mixprof.data.errors import UsageError
from mixprof.data.json import Json, digest, line
from mixprof.data.launch import Launch
from mixprof.data.record import SCHEMA, Record

T = TypeVar("T")
READABLE = (1, SCHEMA)
PARTS = ("sweep", "measure", "environment", "versions")  # of every manifest
MANIFEST, JOURNAL, RECORDS, LOCK = "manifest.json", "launches.jsonl", "records.jsonl", "lock"
CROSSCHECK = "crosscheck.json"
PEAKS = "peaks.json"
SOFTWARE = ("cuda", "cudnn", "libc")  # of a testbed: compared as the versions are, and no part of its key


def is_blank(run: Path) -> bool:
    """Whether a folder is empty, or as a sweep that was killed before it had its manifest left it."""
    return run.is_dir() and {path.name for path in run.iterdir()} <= {LOCK, MANIFEST + ".tmp"}


def make_folder(folder: Path, hidden: bool) -> None:
    """Make a job's folder. UsageError where it exists. hidden: from git, by a file of its own: nobody named it."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise UsageError(f"got '{folder}', which exists, expected a new folder") from None
    if hidden:
        (folder / ".gitignore").write_text("*\n")


def write_manifest(run: Path, manifest: Json) -> None:
    """Write RUN/manifest.json whole or not at all; on disk when this returns."""
    _write_whole(run / MANIFEST, manifest)


def _write_whole(path: Path, fields: Json) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w") as file:
        file.write(json.dumps({"schema": SCHEMA, **fields}, indent=1, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    _sync_names(path.parent)


def write_crosscheck(run: Path, found: Json) -> None:
    """Write RUN/crosscheck.json whole or not at all; `cases` holds a mark for each TensorRT record."""
    _write_whole(run / CROSSCHECK, found)


def read_crosscheck(run: Path) -> dict[Case, Json]:
    """The mark of each case that was checked against trtexec, with what belongs to it; empty where none was."""
    path = run / CROSSCHECK
    try:
        found = json.loads(path.read_text())
        _check_schema(found)
        return {Case.from_json(entry["case"]): {**entry, "mark": str(entry["mark"])} for entry in found["cases"]}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"got '{path}', which cannot be read ({type(error).__name__}: {error}): expected what `mixprof crosscheck` "
            "writes; run it again, or remove the file"
        ) from error


def write_peaks(run: Path, peaks: list[Json]) -> None:
    """Write RUN/peaks.json whole or not at all: what each device can do at most in each dtype."""
    _write_whole(run / PEAKS, {"peaks": peaks})


def read_peaks(run: Path) -> list[Json]:
    """The peaks of a run's devices; empty where none were measured, as in runs older than these."""
    path = run / PEAKS
    try:
        found: list[Json] = json.loads(path.read_text())["peaks"]
        return [{**each, "device": str(each["device"]), "dtype": str(each["dtype"])} for each in found]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"got '{path}', which cannot be read ({type(error).__name__}: {error}): expected what `mixprof sweep` "
            "writes; restore the file, or remove it"
        ) from error


def _sync_names(folder: Path) -> None:
    """Put on disk which files a folder holds: a power cut would otherwise lose a new one whole."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_manifest(run: Path) -> Json:
    """The manifest of a run folder; UsageError when the folder is none."""
    path = run / MANIFEST
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError:
        raise UsageError(
            f"got '{run}', which has no {MANIFEST}: expected a run folder; `mixprof sweep --out` makes one"
        ) from None
    except (OSError, ValueError) as error:
        raise UsageError(f"got '{path}', which cannot be read ({error}): expected the manifest of a run") from error
    try:
        _check_schema(manifest)
    except ValueError as error:
        raise UsageError(f"{path}: {error}: read it with the mixprof that wrote it") from error
    if absent := [part for part in PARTS if not isinstance(manifest.get(part), dict)]:
        raise UsageError(f"got '{path}' without {', '.join(absent)}, expected the manifest of a run: restore the file")
    return manifest


def append_launch(run: Path, case: Case, launch: Launch) -> None:
    _append(run / JOURNAL, {"schema": SCHEMA, "case": case.to_json(), "launch": launch.to_json()})


def append_record(run: Path, record: Record) -> None:
    _append(run / RECORDS, record.to_json())


def _append(path: Path, fields: Json) -> None:
    """One line, on disk when this returns. A write that fails leaves the file as it was."""
    with path.open("ab", buffering=0) as file:
        size = file.tell()
        try:
            content = line(fields)
            if file.write(content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
            if not size:
                _sync_names(path.parent)
        except OSError as error:
            os.truncate(path, size)
            raise OSError(error.errno, error.strerror, str(path)) from error


@contextlib.contextmanager
def lock(run: Path) -> Iterator[None]:
    """Hold a run folder for one sweep. The kernel lets go of it when the process ends, however it ends."""
    with (run / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"got '{run}', which another sweep is writing: expected one sweep a folder; wait for it, or use --out"
            ) from None
        yield


def read_launches(run: Path) -> list[tuple[Case, Launch]]:
    return _read(run / JOURNAL, lambda line: (Case.from_json(line["case"]), Launch.from_json(line["launch"])))


def read_records(run: Path) -> list[Record]:
    return _read(run / RECORDS, Record.from_json)


def _read(path: Path, parse: Callable[[Json], T]) -> list[T]:
    """Every line of a file of JSON lines as what it stands for; nothing if the file does not exist."""
    if not path.exists():
        return []
    found = []
    with path.open("rb") as file:
        for number, text in enumerate(file, 1):
            try:
                found.append(parse(_parse(text)))
            except (ValueError, KeyError, TypeError) as error:
                raise UsageError(
                    f"got {path}:{number}, which is no line of a run ({type(error).__name__}: {error}): expected one "
                    "JSON object of this schema; restore the file, or remove that line"
                ) from error
    return found


def _parse(text: bytes) -> Json:
    if not text.endswith(b"\n"):
        raise ValueError("torn line")
    fields: Json = json.loads(text)
    _check_schema(fields)
    return fields


def _check_schema(fields: object) -> None:
    """Raise ValueError for values of a schema that this mixprof does not read."""
    schema = fields.get("schema") if isinstance(fields, dict) else type(fields).__name__
    if schema not in READABLE:
        raise ValueError(f"got schema {schema}, expected {' or '.join(map(str, READABLE))}")


def set_torn_lines_aside(run: Path) -> list[str]:
    """Move a torn last line of a run's files to `*.torn`; what was done, one message a file."""
    messages = []
    for path in (run / JOURNAL, run / RECORDS):
        if not path.exists():
            continue
        content = path.read_bytes()
        whole = _end_of_whole_lines(content)
        if whole == len(content):
            continue
        with path.with_name(path.name + ".torn").open("ab") as torn:
            torn.write(content[whole:] + b"\n")
        os.truncate(path, whole)
        messages.append(f"{path}: a torn last line of {len(content) - whole} bytes was moved to {path.name}.torn")
    return messages


def _end_of_whole_lines(content: bytes) -> int:
    """Where the last whole line ends. A last line with its newline but broken JSON counts as torn."""
    end = content.rfind(b"\n") + 1
    start = content.rfind(b"\n", 0, end - 1) + 1 if end else 0
    try:
        json.loads(content[start:end] or "null")
    except ValueError:
        return start
    return end


def flatten(value: Any, name: str = "") -> Json:
    """{"gpus": [{"ecc": True}]} -> {"gpus[0].ecc": True}. What is flat stays as it is."""
    if isinstance(value, dict) and (value or not name):
        parts = [(f"{name}.{key}" if name else str(key), each) for key, each in value.items()]
    elif isinstance(value, list) and value:
        parts = [(f"{name}[{index}]", each) for index, each in enumerate(value)]
    else:
        return {name: value}
    return {path: leaf for key, each in parts for path, leaf in flatten(each, key).items()}


def hardware(testbed: Json) -> Json:
    """A flat testbed without its software."""
    return {name: value for name, value in flatten(testbed).items() if name not in SOFTWARE}


def testbed_key(testbed: Json) -> str:
    """Runs with the same key were made on machines that compare: the hash of the machine and how it is set."""
    return digest(hardware(testbed))
