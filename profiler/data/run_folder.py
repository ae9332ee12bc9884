"""A run folder: manifest.json, launches.jsonl (the journal), records.jsonl. Appended line by line, read back whole.

Schema 1 had no step of a case and no metrics, and left out what was not measured of a launch's memory, energy and
environment: absent, they are what they were then.
"""

import contextlib
import fcntl
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from mixprof.data import files
from mixprof.data.case import Case
from mixprof.data.errors import UsageError
from mixprof.data.json import Json, Message, decode, to_builtins
from mixprof.data.launch import Launch
from mixprof.data.manifest import Checked, CrossCheck, Manifest, Peaks
from mixprof.data.record import SCHEMA, Record

T = TypeVar("T")
READABLE = (1, SCHEMA)
MANIFEST, JOURNAL, RECORDS, LOCK = "manifest.json", "launches.jsonl", "records.jsonl", "lock"
CROSSCHECK, PEAKS = "crosscheck.json", "peaks.json"


class _ListOfPeaks(Message, frozen=True):
    peaks: list[Peaks]


def is_blank(run: Path) -> bool:
    """Whether a folder is empty, or as a sweep that was killed before it had its manifest left it."""
    begun = f".{MANIFEST}."
    return run.is_dir() and all(path.name == LOCK or path.name.startswith(begun) for path in run.iterdir())


def make_folder(folder: Path, hidden: bool) -> None:
    """Make a job's folder. UsageError where it exists. hidden: from git, by a file of its own: nobody named it."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise UsageError(f"got '{folder}', which exists, expected a new folder") from None
    if hidden:
        (folder / ".gitignore").write_text("*\n")


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


def write_manifest(run: Path, manifest: Manifest) -> None:
    """Write RUN/manifest.json whole or not at all; on disk when this returns."""
    _write(run / MANIFEST, manifest)


def read_manifest(run: Path) -> Manifest:
    """The manifest of a run folder; UsageError when the folder is none."""
    path = run / MANIFEST
    if not path.exists():
        raise UsageError(
            f"got '{run}', which has no {MANIFEST}: expected a run folder; `mixprof sweep --out` makes one"
        )
    return _read(path, Manifest, "the manifest of a run: restore it, or read it with the mixprof that wrote it")


def write_crosscheck(run: Path, checked: CrossCheck) -> None:
    """Write RUN/crosscheck.json whole or not at all; `cases` holds a mark for each TensorRT record."""
    _write(run / CROSSCHECK, checked)


def read_crosscheck(run: Path) -> dict[Case, Checked]:
    """The mark of each case that was checked against trtexec; empty where none was."""
    path = run / CROSSCHECK
    if not path.exists():
        return {}
    checked = _read(path, CrossCheck, "what `mixprof crosscheck` writes; run it again, or remove the file")
    return {entry.case: entry for entry in checked.cases}


def write_peaks(run: Path, peaks: list[Peaks]) -> None:
    """Write RUN/peaks.json whole or not at all: what each device can do at most in each dtype."""
    _write(run / PEAKS, _ListOfPeaks(peaks))


def read_peaks(run: Path) -> list[Peaks]:
    """The peaks of a run's devices; empty where none were measured, as in runs older than these."""
    path = run / PEAKS
    if not path.exists():
        return []
    return _read(path, _ListOfPeaks, "what `mixprof sweep` writes; restore the file, or remove it").peaks


def _write(path: Path, message: Message) -> None:
    fields = {"schema": SCHEMA, **to_builtins(message)}
    files.write_whole(path, (json.dumps(fields, indent=1, allow_nan=False) + "\n").encode())


def _read(path: Path, of: type[T], expected: str) -> T:
    """A file that was written whole. UsageError for another one: what was expected, and what to do."""
    try:
        return decode(_checked(json.loads(path.read_bytes())), of)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"got '{path}', which cannot be read ({type(error).__name__}: {error}), expected {expected}"
        ) from error


def append_launch(run: Path, case: Case, launch: Launch) -> None:
    """Journal a launch that ended. ValueError for NaN or infinity, which JSON has not."""
    files.append(run / JOURNAL, {"schema": SCHEMA, "case": case.to_json(), "launch": launch.to_json()})


def append_record(run: Path, record: Record) -> None:
    """Write a finished case."""
    files.append(run / RECORDS, record.to_json())


def read_launches(run: Path) -> list[tuple[Case, Launch]]:
    """The journal of a run, in the order in which launches ended."""
    return _read_lines(run / JOURNAL, lambda line: (Case.from_json(line["case"]), Launch.from_json(line["launch"])))


def read_records(run: Path) -> list[Record]:
    """The finished cases of a run."""
    return _read_lines(run / RECORDS, Record.from_json)


def set_torn_lines_aside(run: Path) -> list[str]:
    """Move a torn last line of a run's files to `*.torn`; what was done, one message a file."""
    messages = [files.set_torn_line_aside(run / name) for name in (JOURNAL, RECORDS)]
    return [message for message in messages if message is not None]


def _read_lines(path: Path, parse: Callable[[Json], T]) -> list[T]:
    """Every line of a file of JSON lines as what it stands for; nothing if the file does not exist."""
    if not path.exists():
        return []
    values = []
    with path.open("rb") as file:
        for number, text in enumerate(file, 1):
            try:
                if not text.endswith(b"\n"):
                    raise ValueError("torn line")
                values.append(parse(_checked(json.loads(text))))
            except (ValueError, KeyError, TypeError) as error:
                raise UsageError(
                    f"got {path}:{number}, which is no line of a run ({type(error).__name__}: {error}): expected one "
                    "JSON object of this schema; restore the file, or remove that line"
                ) from error
    return values


def _checked(fields: object) -> Json:
    """An object's fields without their schema. ValueError for a schema that this mixprof does not read."""
    schema = fields.get("schema") if isinstance(fields, dict) else type(fields).__name__
    if not isinstance(fields, dict) or schema not in READABLE:
        raise ValueError(f"got schema {schema}, expected {' or '.join(map(str, READABLE))}")
    return {name: value for name, value in fields.items() if name != "schema"}
