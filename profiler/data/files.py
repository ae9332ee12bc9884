"""Files that are written whole or line by line, and are on disk when a call returns."""

import contextlib
import errno
import json
import os
import time
from pathlib import Path

from mixprof.data.json import Json, line


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, however this process ends."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_names(path.parent)


def append(path: Path, fields: Json) -> None:
    """Add one line. A write that fails leaves the file as it was."""
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


def _sync_names(folder: Path) -> None:
    """Put on disk which files a folder holds: a power cut would otherwise lose a new one whole."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def set_torn_line_aside(path: Path) -> str | None:
    """Move a torn last line to `*.torn`; a message where there was one."""
    content = path.read_bytes() if path.exists() else b""
    whole = _end_of_whole_lines(content)
    if whole == len(content):
        return None
    with path.with_name(path.name + ".torn").open("ab") as torn:
        torn.write(content[whole:] + b"\n")
    os.truncate(path, whole)
    return f"{path}: a torn last line of {len(content) - whole} bytes was moved to {path.name}.torn"


def _end_of_whole_lines(content: bytes) -> int:
    """Where the last whole line ends. A last line with its newline but broken JSON counts as torn."""
    end = content.rfind(b"\n") + 1
    start = content.rfind(b"\n", 0, end - 1) + 1 if end else 0
    try:
        json.loads(content[start:end] or "null")
    except ValueError:
        return start
    return end


def new_folder(kind: str = "") -> Path:
    """A name in runs/ that no other process has, not even one that began within the second."""
    return Path("runs") / f"{kind}{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
