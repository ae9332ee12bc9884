"""Whether two runs may be compared: the machine, how it is set, and the software that was not declared under test."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mixprof.data.errors import UsageError
from mixprof.reports.gate.stored import Stored

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Compared:
    """What two runs differ in, each in words with both values."""

    different: tuple[str, ...]  # forbids the comparison
    unknown: tuple[str, ...]  # a sensor could not tell
    declared: tuple[str, ...]  # under test
    informing: tuple[str, ...]

    @property
    def notes(self) -> list[str]:
        """What a verdict says of them, a line each."""
        words = (("under test", self.declared), ("unknown, not compared", self.unknown), ("also", self.informing))
        return [f"{label}: {'; '.join(differences)}" for label, differences in words if differences]


def compare(base: Stored, head: Stored, under_test: Collection[str] = ()) -> Compared:
    """What of their environments differs. under_test: names of software whose versions may."""
    versions = list(_differing(base.versions, head.versions))
    machine = list(_differing(base.testbed, head.testbed))
    untold = {name for name, *both in machine if UNKNOWN in both}
    untold |= {name for name, value in base.testbed.items() if value == UNKNOWN}
    return Compared(
        different=(
            *(_words(*difference) for difference in machine if difference[0] not in untold),
            *(_words(*difference) for difference in versions if difference[0] not in under_test),
        ),
        unknown=tuple(_words(name, base.testbed.get(name), head.testbed.get(name)) for name in sorted(untold)),
        declared=tuple(_words(*difference) for difference in versions if difference[0] in under_test),
        informing=tuple(
            _words(*difference)
            for difference in _differing(base.informing, head.informing)
            if difference[0] in base.informing
        ),
    )


def declared(text: str | None, versions: Iterable[str]) -> frozenset[str]:
    """ "torch,onnxruntime" -> their names. UsageError for a name that no run has."""
    names, known = [name.strip() for name in (text or "").split(",") if name.strip()], sorted(set(versions))
    for name in names:
        if name not in known:
            raise UsageError(f"--under-test: got '{name}', expected some of {', '.join(known)}, separated by commas")
    return frozenset(names)


def _differing(base: Mapping[str, Any], head: Mapping[str, Any]) -> Iterable[tuple[str, Any, Any]]:
    for name in sorted({*base, *head}):
        if base.get(name) != head.get(name):
            yield name, base.get(name), head.get(name)


def _words(name: str, base: Any, head: Any) -> str:
    if base == head:
        return f"{name} on both sides" if base == UNKNOWN else f"{name} {base}"
    return f"{name} {_value(base)} there, {_value(head)} here"


def _value(value: Any) -> str:
    return "none" if value is None else str(value)
