"""A history: a folder, or any fsspec URL, of run files that are written once and never changed.

A file's name holds the testbed key, the time of the run in UTC and the hash of the content, so many writers can add
to one history at once, and who lists it knows which files are theirs.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from mixprof.data.errors import UsageError
from mixprof.data.files import write_whole

NAME = re.compile(r"(?P<key>[0-9a-f]{16})-(?P<time>\d{8}T\d{6}Z)-(?P<hash>[0-9a-f]{16})\.json")


@dataclass(frozen=True)
class File:
    """One run of a history, by its name alone."""

    path: str
    key: str  # of the testbed
    time: str  # 20260131T120000Z
    hash: str  # of the content


class History:
    """A place that holds run files."""

    def __init__(self, url: str):
        self.url = url
        with self._in_one_line():
            self._files, self._path = fsspec.core.url_to_fs(url)

    def files(self) -> list[File]:
        """Every run, oldest first. A place that does not exist yet has none; other files in it are not looked at."""
        with self._in_one_line():
            try:
                names = self._files.ls(self._path, detail=False, refresh=True)
            except FileNotFoundError:
                return []
        matches = [(path, NAME.fullmatch(path.rstrip("/").rpartition("/")[2])) for path in names]
        files = [File(path, **match.groupdict()) for path, match in matches if match]
        return sorted(files, key=lambda file: (file.time, file.hash))

    def read(self, file: File) -> dict[str, Any]:
        """The content of a run file. UsageError for one whose content is not what its name says."""
        with self._in_one_line():
            content: bytes = self._files.cat_file(file.path)
        if _hash(content) != file.hash:
            raise UsageError(
                f"got '{file.path}', whose content is not the one that its name stands for (torn, or edited): "
                "expected a file as it was written; remove it"
            )
        fields: dict[str, Any] = json.loads(content)
        return fields

    def add(self, key: str, created: datetime, fields: Mapping[str, Any]) -> tuple[str, bool]:
        """Write one run as a new file; where it lies, and whether it was not there already."""
        content = serialize(fields)
        when = created.astimezone(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        path = f"{self._path.rstrip('/')}/{key}-{when}-{_hash(content)}.json"
        with self._in_one_line():
            self._files.makedirs(self._path, exist_ok=True)
            if self._files.exists(path):
                return path, False
            if isinstance(self._files, LocalFileSystem):
                write_whole(Path(path), content)
            else:
                self._files.pipe_file(path, content)  # an object store shows it whole or not at all
        return path, True

    @contextlib.contextmanager
    def _in_one_line(self) -> Iterator[None]:
        """What a file system cannot do, in one line."""
        try:
            yield
        except (ImportError, ValueError) as error:
            raise UsageError(
                f"got history '{self.url}', expected a folder or a URL that fsspec opens: {error}"
            ) from error


def serialize(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, sort_keys=True, indent=1, allow_nan=False).encode() + b"\n"


def content_hash(fields: Mapping[str, Any]) -> str:
    """What the name of a run file holds of its content."""
    return _hash(serialize(fields))


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def is_url(text: str) -> bool:
    return "://" in text or "::" in text
