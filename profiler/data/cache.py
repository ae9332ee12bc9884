"""Engines and their graphs on disk, named by content, in a folder that this user alone can write."""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from mixprof.data.errors import UsageError
from mixprof.data.files import write_whole
from mixprof.data.json import Json

write = write_whole
ENGINE, PROOF = "engine.plan", "proof.json"


def folder() -> Path:
    """$MIXPROF_CACHE, else mixprof in the user's cache folder, or in that of temporary files where there is none."""
    if chosen := os.environ.get("MIXPROF_CACHE"):
        return Path(os.path.expanduser(chosen))
    base = Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache"))
    # A user without a home, or an entry in passwd that would name one: a container's.
    return base / "mixprof" if base.is_absolute() else Path(tempfile.gettempdir()) / f"mixprof-{os.getuid()}"


def own_folder(path: Path) -> Path:
    """Make a folder, or check that this user owns it and nobody else can write it: what lies in it is run as code."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = path.stat()
    if facts.st_uid != os.getuid() or facts.st_mode & 0o022:
        raise UsageError(
            f"got '{path}', which others own or can write, expected a folder of your own: chmod go-w it, or remove it"
        )
    return path


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def keep_graph(content: bytes) -> Path:
    """Keep an ONNX graph under its hash; where it lies."""
    path = own_folder(folder() / "onnx") / f"{sha256(content)}.onnx"
    if not path.exists():
        write_whole(path, content)
    return path


def engine_path(key: str) -> Path:
    return folder() / "engines" / key / ENGINE


def store(key: str, engine: bytes, proof: Mapping[str, object]) -> None:
    """Keep an engine. Its proof, which holds its hash, is written last: without it there is no entry."""
    place = own_folder(own_folder(folder() / "engines") / key)
    write_whole(place / ENGINE, engine)
    write_whole(place / PROOF, json.dumps({**proof, "engine_sha256": sha256(engine)}).encode())


def fetch(key: str) -> tuple[tuple[bytes, Json] | None, str | None]:
    """The engine and proof under a key, or None; and a warning where there are some but they are damaged."""
    place = folder() / "engines" / key
    if not place.exists():
        return None, None
    own_folder(folder() / "engines")
    own_folder(place)
    try:
        proof: Json = json.loads((place / PROOF).read_bytes())
        engine = (place / ENGINE).read_bytes()
        if proof["engine_sha256"] == sha256(engine):
            return (engine, proof), None
        damage = "its engine is not the one that was written"
    except FileNotFoundError:
        return None, None  # ended before it was whole
    except (OSError, ValueError, KeyError, TypeError) as error:
        damage = f"{type(error).__name__}: {error}"
    return None, f"{place} is damaged ({damage}) and was built again"
