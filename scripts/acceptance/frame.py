"""A check, what becomes of it, and the file that keeps each result from the moment it is known. Needs no package."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

Value = str | int | float | bool | None
NEEDS = ("nothing", "device", "gpu")  # "device": sim:0 will do; "gpu": a real one alone
OUTCOMES = ("passed", "skipped", "failed")
NONE = "none"  # a device's label where there is none
SCHEMA = 2


def patience(device: str) -> int:
    """How many times its usual limit a check may take: the host of a simulated device may be a busy runner."""
    return 4 if device.startswith("sim") else 1


class Skipped(Exception):
    """A check can't be made here; the message says why."""


class Usage(Exception):
    """The command line asks for what can't be; the message is one line."""


@dataclass(frozen=True)
class Check:
    """One claim that is to be proven: a function that is run in a process of its own, and its time."""

    name: str  # "timing.gated": the block, then what of it
    decides: str  # what holds when it passes
    probe: str  # "acceptance.timing:gated"
    limit_s: float  # its own time-out
    usual_s: float = 5.0  # it is not begun when less is left before the deadline
    needs: str = "device"
    arguments: Mapping[str, object] = field(default_factory=dict)

    @property
    def block(self) -> str:
        return self.name.partition(".")[0]


@dataclass(frozen=True)
class Seen:
    """What a probe saw. `values` are what predictions speak of; of `wrong`, each entry is a claim that failed."""

    values: Mapping[str, Value] = field(default_factory=dict)
    samples: Mapping[str, list[float]] = field(default_factory=dict)  # raw, the unit in the name
    wrong: tuple[str, ...] = ()
    raw: Mapping[str, object] = field(default_factory=dict)  # what a tool or library answered, as it came
    virtual_s: float | None = None  # that passed on a simulated device


@dataclass(frozen=True)
class Result:
    """A line of the file."""

    name: str
    outcome: str  # of OUTCOMES
    message: str | None = None
    seconds: float = 0.0
    device: str = ""
    at: str = ""  # when it ended
    seen: Seen = field(default_factory=Seen)
    predicted: tuple[Mapping[str, object], ...] = ()  # {what, expected, seen, holds}

    @property
    def simulated(self) -> bool:
        return self.device.startswith("sim")


class Journal:
    """Results in a file, a line each, on the disk before `keep` returns. A torn last line is cut off and said."""

    def __init__(self, path: Path, *, device: str, resume: bool):
        self.path = path
        self.results: dict[str, Result] = {}
        if path.exists():
            self._read()
        if {result.device for result in self.results.values()} == {NONE}:  # an earlier try, without a device
            self.results.clear()
            path.unlink()
        if self.results and not resume:
            raise Usage(f"'{path}' has results of an earlier run: go on with --resume, or move it away")
        if other := next((result.device for result in self.results.values() if result.device != device), None):
            raise Usage(f"--resume: '{path}' is of '{other}', not of '{device}'")

    def _read(self) -> None:
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            print(f"{self.path}: the last line was torn off and is left out: {content[len(whole) :][:60]!r}")
            os.truncate(self.path, len(whole))
        for line in whole.splitlines():
            result = read(line)
            self.results[result.name] = result

    def keep(self, result: Result) -> None:
        self.results[result.name] = result
        line = json.dumps({"schema": SCHEMA, "simulated": result.simulated, **asdict(result)}, default=str)
        with open(self.path, "ab") as file:
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def read(line: bytes) -> Result:
    """A line's result."""
    fields = json.loads(line)
    if fields.pop("schema") != SCHEMA:
        raise Usage(f"got a line of another schema, expected {SCHEMA}: begin with an empty folder")
    fields.pop("simulated")
    seen = Seen(**{**fields.pop("seen")})
    return Result(**{**fields, "seen": seen, "predicted": tuple(fields["predicted"])})


def chosen(checks: tuple[Check, ...], names: str | None) -> tuple[Check, ...]:
    """The checks that `--only` names, by block or by whole name; all without it."""
    if names is None:
        return checks
    wanted = [name for name in names.split(",") if name]
    known = {name for check in checks for name in (check.block, check.name)}
    if unknown := [name for name in wanted if name not in known]:
        blocks = ", ".join(dict.fromkeys(check.block for check in checks))
        raise Usage(f"got --only '{unknown[0]}', expected a block ({blocks}) or a check of one: see --list")
    return tuple(check for check in checks if check.block in wanted or check.name in wanted)
