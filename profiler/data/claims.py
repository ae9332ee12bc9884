"""One sweep at a time writes to a URL: each puts up a claim of its own, which it renews, and looks for those of others.

A claim is a file that nobody else writes, so any store that lists what was put serves. Claims wait at first. One that
sees no other runs. Of two that wait the later gives up when the earlier is seen to live; one that runs is left alone
while it is renewed. What is not renewed for a while is dead, and so is at once a process of this machine that is gone.
"""

import contextlib
import json
import os
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec

from mixprof.data.errors import UsageError, one_line
from mixprof.data.json import digest

FOLDER = "writers"
RENEW_S, LEASE_S = 15.0, 60.0
LOOK_S = 1.0


@dataclass
class Claim:
    """The right to write below a URL."""

    url: str
    files: fsspec.AbstractFileSystem
    root: str
    name: str = field(default_factory=lambda: f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.json")
    state: str = "waits"
    renewals: int = 0
    lost: bool = False  # somebody took this one for dead
    _over: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def keeping(self) -> Iterator["Claim"]:
        """Win the claim, renew it, and take it down at the end. UsageError where another sweep writes."""
        try:
            self._put()
        except Exception as error:  # of many types, those of each store's client
            raise UsageError(f"got '{self.url}', which cannot be written: {one_line(error)}") from None
        renewing = threading.Thread(target=self._renew, daemon=True)
        renewing.start()
        try:
            self._win()
            yield self
        finally:
            self._over.set()
            renewing.join(RENEW_S)
            with contextlib.suppress(Exception):  # a store that does not answer any more: the claim dies by itself
                self.files.rm_file(self._path(self.name))

    def check(self) -> bool:
        """Whether it stands; one that others took down is lost for good. Raises what the store's client does."""
        self.files.invalidate_cache()
        try:
            self.files.info(self._path(self.name))
        except FileNotFoundError:
            self.lost = True
        return not self.lost

    def _win(self) -> None:
        """Return once this is the only claim that lives."""
        seen: dict[str, tuple[Any, float]] = {}  # of each other claim its content, and since when that is so
        while others := self._others():
            for name, fields in others.items():
                before, since = seen.get(name, (None, time.monotonic()))
                renewed = before is not None and before != fields
                seen[name] = (fields, time.monotonic() if renewed else since)
                if (alive := _is_alive(fields)) is False or time.monotonic() - seen[name][1] > LEASE_S:
                    with contextlib.suppress(FileNotFoundError):
                        self.files.rm_file(self._path(name))
                elif (renewed or alive) and (fields.get("state") == "runs" or name < self.name):
                    raise UsageError(
                        f"got '{self.url}', where another sweep writes (on {fields.get('host')}, process "
                        f"{fields.get('pid')}): expected another URL, or --resume when it has ended"
                    )
            time.sleep(LOOK_S)
        self.state = "runs"
        self._put()

    def _others(self) -> dict[str, dict[str, Any]]:
        self.files.invalidate_cache()
        names = {str(path).rpartition("/")[2] for path in self.files.ls(f"{self.root}/{FOLDER}", detail=False)}
        claims = {}
        for name in sorted(names - {self.name}):
            with contextlib.suppress(FileNotFoundError, ValueError):  # taken down since, or half written
                claims[name] = dict(json.loads(self.files.cat_file(self._path(name))))
        return claims

    def _renew(self) -> None:
        while not self._over.wait(RENEW_S):
            with contextlib.suppress(Exception):  # of many types, those of each store's client; the next may succeed
                if self.check():
                    self._put()

    def _put(self) -> None:
        self.renewals += 1
        me = {"state": self.state, "renewals": self.renewals, **_process()}
        self.files.makedirs(f"{self.root}/{FOLDER}", exist_ok=True)
        self.files.pipe_file(self._path(self.name), json.dumps(me).encode())

    def _path(self, name: str) -> str:
        return f"{self.root}/{FOLDER}/{name}"


def _process() -> dict[str, object]:
    """This process, so that others on its machine can tell whether it still runs."""
    pid = os.getpid()
    return {"host": os.uname().nodename, "pid": pid, "place": _place(), "started": _started(pid)}


def _place() -> str | None:
    """Where a process number means the same: a boot, and a namespace of processes. None where nobody can tell."""
    try:
        return digest([Path("/proc/sys/kernel/random/boot_id").read_text(), os.readlink("/proc/self/ns/pid")])
    except OSError:
        return None


def _started(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None


def _is_alive(fields: Mapping[str, Any]) -> bool | None:
    """Whether the process of a claim runs; None for one of another machine."""
    if fields.get("place") is None or fields["place"] != _place():
        return None
    return _started(int(fields["pid"])) == fields.get("started")
