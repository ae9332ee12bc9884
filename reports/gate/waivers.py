"""Waivers: regressions that a team has accepted for a time, in a TOML file that is reviewed and committed."""

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from mixprof.data import toml
from mixprof.data.errors import UsageError

DEFAULT = Path("mixprof-waivers.toml")
TITLE = "# Regressions that were accepted, written by `mixprof accept`. A waiver counts through its last day.\n"
TYPES = {"case": str, "reason": str, "until": datetime.date}


@dataclass(frozen=True)
class Waiver:
    """Lets one case, family or the grid pass in spite of its verdict."""

    case: str  # its name, as the table of verdicts has it
    reason: str
    until: datetime.date  # the last day on which it counts

    def counts(self, today: datetime.date) -> bool:
        return today <= self.until


def parse_date(text: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--until: got '{text}', expected a date like 2026-12-31") from None


def read(path: Path) -> tuple[Waiver, ...]:
    """The waivers of a file. UsageError for one that cannot be read, or that no `accept` would have written."""
    try:
        content: dict[str, Any] = toml.decode(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"got waivers '{path}', which cannot be read ({error}), expected TOML: mend it") from error
    tables = content.pop("waiver", [])
    if content or not isinstance(tables, list):
        raise UsageError(f"{path}: got {', '.join(content) or 'waiver'}, expected [[waiver]] tables and nothing else")
    waivers = tuple(_waiver(path, number, table) for number, table in enumerate(tables, 1))
    names = [waiver.case for waiver in waivers]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"{path}: got two waivers of '{twice}', expected one a case: keep the one that holds")
    return waivers


def _waiver(path: Path, number: int, table: Any) -> Waiver:
    if not isinstance(table, Mapping) or set(table) != set(TYPES):
        got = (", ".join(table) or "nothing") if isinstance(table, Mapping) else repr(table)
        raise UsageError(f"{path}: got {got} in waiver {number}, expected {', '.join(TYPES)}")
    for name, kind in TYPES.items():
        # A time of day is a date to isinstance, and compares with none.
        if type(table[name]) is not kind or not table[name]:
            like = "a date without quotes, like 2026-12-31" if kind is datetime.date else "a text that is not empty"
            raise UsageError(f"{path}: got {name} = {table[name]!r} in waiver {number}, expected {like}")
    return Waiver(**table)


def accept(waivers: Iterable[Waiver], new: Waiver, today: datetime.date) -> tuple[Waiver, ...]:
    """The waivers with one more, which replaces an earlier one of its case. UsageError for one that says nothing."""
    for name in ("case", "reason"):
        if not getattr(new, name).strip():
            raise UsageError(f"got an empty {name}, expected a text for those who review the waiver")
    if not new.counts(today):
        raise UsageError(f"--until: got {new.until}, which is over, expected a day from {today} on")
    return (*(waiver for waiver in waivers if waiver.case != new.case), new)


def as_toml(waivers: Sequence[Waiver]) -> str:
    """The same waivers are always the same text, so that a diff shows what changed."""
    ordered = sorted(waivers, key=lambda waiver: waiver.case)
    return TITLE + "\n" + tomli_w.dumps({"waiver": [vars(waiver) for waiver in ordered]}) if ordered else TITLE


def notes(waivers: Iterable[Waiver], verdicts: Mapping[str, str], today: datetime.date) -> list[str]:
    """What those who keep the file should know: which ran out, which nobody needs any more, which name no case.

    verdicts: name of a case, family or grid -> its verdict.
    """
    lines = []
    for waiver in waivers:
        verdict, start = verdicts.get(waiver.case), f"the waiver of '{waiver.case}'"
        if not waiver.counts(today):
            lines.append(f"{start} ran out on {waiver.until} and does not count: {waiver.reason}")
        elif verdict is None:
            lines.append(f"{start} names nothing that this job compared")
        elif verdict in ("same", "improved"):
            lines.append(f"{start} is not needed any more, the verdict is {verdict}: remove it")
    return lines
