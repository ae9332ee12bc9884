"""A run folder on object storage: what is appended goes there in parts that nobody changes, the rest as whole files.

Of `launches.jsonl` a part is `launches.jsonl.parts/TIME-WRITER-NUMBER-HASH`, so that many writers never touch a part
of one another, and one that is not what its name says is torn.
"""

import hashlib
import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import fsspec

from mixprof.data.claims import FOLDER, Claim
from mixprof.data.errors import UsageError, one_line
from mixprof.data.histories import is_url
from mixprof.data.run_folder import LOCK

PARTS = ".parts/"
NAME = re.compile(r"(?P<time>\d{20})-(?P<writer>[0-9a-f]{8})-(?P<number>\d{8})-(?P<hash>[0-9a-f]{16})")


@dataclass
class RemoteRun:
    """A run, or a fleet, at a URL, and what of a working copy is there."""

    url: str
    writer: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    number: int = 0
    sent: dict[str, int] = field(default_factory=dict)  # bytes of each file that grows
    whole: dict[str, str] = field(default_factory=dict)  # hash of each other file

    def __post_init__(self) -> None:
        try:
            self.files, root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise UsageError(f"got '{self.url}', which cannot be opened: {one_line(error)}") from None
        self.root = str(root).rstrip("/")

    def exists(self) -> bool:
        """Whether anything is there."""
        return bool(self._names())

    def claim(self) -> Claim:
        """The right to write here, still to be won."""
        return Claim(self.url, self.files, self.root)

    def pull(self, folder: Path) -> list[str]:
        """Copy the run into an empty folder; what was torn and is set aside, a line each."""
        torn: list[str] = []
        grown: dict[str, list[tuple[str, bytes]]] = {}
        for name in self._names():
            if name.startswith(f"{FOLDER}/"):
                continue
            content: bytes = self.files.cat_file(f"{self.root}/{name}")
            file, parts, part = name.partition(PARTS)
            if not parts:
                self._copy(folder / name, content)
                self.whole[name] = _hash(content)
            elif (match := NAME.fullmatch(part)) and match["hash"] == _hash(content):
                grown.setdefault(file, []).append((part, content))
            elif not part.endswith(".torn"):
                self.files.mv(f"{self.root}/{name}", f"{self.root}/{name}.torn")
                torn.append(f"{self.url}/{name}: a torn part of {len(content)} bytes was moved to {part}.torn")
        for file, contents in grown.items():
            whole = b"".join(content for _, content in sorted(contents))
            self._copy(folder / file, whole)
            self.sent[file] = len(whole)
        return torn

    def push(self, folder: Path) -> None:
        """Send what was added to a working copy since it was pulled or last pushed."""
        for path in _of_a_run(folder):
            name = path.relative_to(folder).as_posix()
            if path.suffix == ".jsonl":
                with path.open("rb") as file:
                    file.seek(self.sent.get(name, 0))
                    self._append(name, file.read())
            elif self.whole.get(name) != (hashed := _hash(content := path.read_bytes())):
                self._put(name, content)
                self.whole[name] = hashed

    def _append(self, name: str, content: bytes) -> None:
        content = content[: content.rfind(b"\n") + 1]
        if content:
            part = f"{time.time_ns():020d}-{self.writer}-{self.number:08d}-{_hash(content)}"
            self._put(f"{name}{PARTS}{part}", content)
            self.number += 1
            self.sent[name] = self.sent.get(name, 0) + len(content)

    def _put(self, name: str, content: bytes) -> None:
        """Write a file. On object storage it is there whole or not at all; elsewhere a part's hash tells."""
        path = f"{self.root}/{name}"
        self.files.makedirs(path.rpartition("/")[0], exist_ok=True)
        self.files.pipe_file(path, content)

    def _names(self) -> list[str]:
        """Every file there. UsageError for a store that does not answer, or lets nobody in."""
        self.files.invalidate_cache()
        try:
            paths = [str(path) for path in self.files.find(self.root)]
        except FileNotFoundError:
            return []
        except Exception as error:  # of many types, those of each store's client
            raise UsageError(f"got '{self.url}', which cannot be read: {one_line(error)}") from None
        return sorted(path.partition(f"{self.root}/")[2] for path in paths)

    @staticmethod
    def _copy(path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _of_a_run(folder: Path) -> Iterator[Path]:
    """The files of a run or fleet: no scratch, no lock, nothing half written."""
    for path in sorted(folder.rglob("*.json*")):
        parts = path.relative_to(folder).parts
        if "scratch" not in parts and not any(part.startswith(".") or part == LOCK for part in parts):
            yield path


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def local_copy(run: str | Path, into: Path) -> Path:
    """The run itself where it is a folder; a copy of it below `into` where it is at a URL, with its own name."""
    if not is_url(str(run)):
        return Path(run)
    remote = RemoteRun(str(run))
    if not remote.exists():
        raise UsageError(f"got '{run}', where nothing is: expected the URL that a sweep was given as --out")
    folder = into / (re.sub(r"\W+", "-", str(run).rstrip("/").rpartition("/")[2]) or "run")
    folder.mkdir(parents=True)
    remote.pull(folder)
    return folder
