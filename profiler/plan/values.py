"""Kinds of values that people type, in an option or a sweep file: what is expected, and how it is read."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mixprof.data.errors import UsageError
from mixprof.data.parsing import parse_bytes, parse_resolution


@dataclass(frozen=True)
class Kind:
    """A kind of value, its bounds included."""

    expected: str  # "a whole number from 1 up"
    read: Callable[[Any], Any]  # raises ValueError

    def parse(self, value: object, where: str) -> Any:
        """The value as it is used. UsageError, which begins with `where` it stands."""
        try:
            return self.read(value)
        except (TypeError, ValueError):
            raise UsageError(f"{where}: got {value!r}, expected {self.expected}") from None


def matching(pattern: str, expected: str) -> Kind:
    """Text of a pattern."""

    def read(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise ValueError
        return value

    return Kind(expected, read)


def one_of(*values: str) -> Kind:
    return matching("|".join(map(re.escape, values)), "one of " + ", ".join(values))


def whole_number(least: int) -> Kind:
    def read(value: str | int) -> int:
        if isinstance(value, bool) or not re.fullmatch(r"\d{1,18}", str(value).strip()) or int(value) < least:
            raise ValueError
        return int(value)

    return Kind(f"a whole number from {least} up", read)


def number(expected: str, is_inside: Callable[[float], bool]) -> Kind:
    def read(value: str | float) -> float:
        if isinstance(value, bool) or not is_inside(float(value)):
            raise ValueError
        return float(value)

    return Kind(expected, read)


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


NAME = matching(r"(?s).+", "a name")
DEVICE = matching(r"cpu|cuda:\d+|sim:0", "cpu, cuda:N or sim:0")
SWITCH = Kind("true or false", _switch)
SECONDS = number("a number of seconds above 0", lambda value: 0 < value < 1e9)
DEGREES = number("degrees above 0", lambda value: 0 < value < 1e3)
SHARE = number("a share from 0 to 1", lambda value: 0 <= value <= 1)
RESOLUTION = Kind("a side like 224 or a height by width like 800x1333", parse_resolution)
BYTES = Kind("bytes, like 512MiB or 2GiB", parse_bytes)
