"""Which formulation of a part of a model is the fastest here: measured once, kept in the user's cache folder."""

import contextlib
import json
import os
import tempfile
import time
from dataclasses import field

from mixprof.data import cache
from mixprof.data.errors import UsageError
from mixprof.data.json import Json, Message, decode, digest, to_builtins

VERSION = 1  # of how they are measured: another one is measured anew
DISTURBED_S = 24 * 3600.0  # for which a choice holds that lost much of its CPU time: both sides of a job have the same
MOST_LOST = 0.1


class Choice(Message, frozen=True):
    """The formulation that was found for a part of a model, with what its rivals took."""

    part: str  # its class
    shape: tuple[int, ...]  # of its input
    chosen: str
    usual: str  # what runs where nothing is measured
    ms: dict[str, float]  # least milliseconds of a forward of each formulation that was tried
    refused: dict[str, str] = field(default_factory=dict)  # formulation -> why it was not tried
    lost_cpu_share: float | None = None  # to others, while it was measured
    raced_in: str | None = None  # the lowering that they were measured in; None: the case's own


class Choices(Message, frozen=True):
    """The choices of one case: what all its launches run."""

    formulations: dict[str, str] = field(default_factory=dict)  # path of a part -> the one it runs
    choices: tuple[Choice, ...] = ()
    predicted_peak_bytes: int | None = None  # of an eager forward that runs them
    reason: str | None = None  # why nothing was measured, where that failed

    def proof(self) -> Json:
        """What a record says of them."""
        if self.reason is not None:
            return {"choice_failed": self.reason}
        return {"choices": to_builtins(self.choices)} if self.choices else {}


def key_of(**identity: object) -> str:
    """A name for a part, all it depends on, and the machine that it was measured on."""
    return digest([VERSION, identity])


def recall(key: str) -> Choice | None:
    """What is kept under a key; None where that is nothing that can be used, or was disturbed and is of yesterday."""
    path = cache.folder() / "choices" / f"{key}.json"
    try:
        if not path.exists():
            return None
        cache.own_folder(path.parent)
        choice = decode(json.loads(path.read_bytes()), Choice)
        is_old = time.time() - path.stat().st_mtime > DISTURBED_S
        return None if is_old and (choice.lost_cpu_share or 0.0) > MOST_LOST else choice
    except (OSError, ValueError, UsageError):
        return None


def keep(key: str, choice: Choice) -> Choice:
    """Keep a choice, whole; where another process was first, the one that it kept. OSError or UsageError if neither."""
    folder = cache.own_folder(cache.own_folder(cache.folder()) / "choices")
    descriptor, temporary = tempfile.mkstemp(dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(json.dumps(to_builtins(choice)).encode())
        for _ in range(2):
            with contextlib.suppress(FileExistsError):
                os.link(temporary, folder / f"{key}.json")
                return choice
            if (first := recall(key)) is not None:
                return first
            (folder / f"{key}.json").unlink(missing_ok=True)  # damaged: nobody can use it
        return choice
    finally:
        os.unlink(temporary)
