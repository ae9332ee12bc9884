"""Values that people type: sizes, ranges, and names with a slip in them."""

import difflib
import re
from collections.abc import Callable, Iterable, Sequence

Values = tuple[str, ...] | Callable[[str], object]  # of an option: () for a bare one, or a parser of them


def parse_resolution(text: str | int | Sequence[int]) -> tuple[int, int]:
    """224 -> (224, 224), "800x1333" -> (800, 1333)."""
    if isinstance(text, (list, tuple)):
        text = "x".join(map(str, text))
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", str(text).strip())
    if not match or int(match[1]) < 1 or (match[2] and int(match[2]) < 1):
        raise ValueError("a side like 224 or a height by width like 800x1333")
    return int(match[1]), int(match[2] or match[1])


def parse_bytes(text: str | int) -> int:
    match = re.fullmatch(r"([1-9]\d*)\s*(KiB|MiB|GiB|)", str(text).strip())
    if isinstance(text, bool) or not match:
        raise ValueError("bytes, like 512MiB or 2GiB")
    return int(match[1]) * {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}[match[2]]


def parse_range(text: str) -> tuple[int, int]:
    """ "1-8" -> (1, 8). ValueError when the least exceeds the most."""
    match = re.fullmatch(r"([1-9]\d*)-([1-9]\d*)", text)
    if not match or int(match[1]) > int(match[2]):
        raise ValueError("a range like 1-8, the least first")
    return int(match[1]), int(match[2])


def nearest(name: str, names: Iterable[str]) -> str:
    """The names most like this one, for an error message."""
    names = list(names)
    return ", ".join(difflib.get_close_matches(name, names, n=3, cutoff=0.4) or sorted(names))


def parse_count(value: str) -> int:
    """A whole number from 1 up; ValueError, with what is expected."""
    if not value.isdigit() or int(value) < 1:
        raise ValueError("a whole number from 1 up")
    return int(value)


def why_wrong(option: str, equals: str, value: str, values: Values) -> str | None:
    """The values that an option takes, in words; None when the value is one of them."""
    if callable(values):
        try:
            values(value)
        except ValueError as error:
            return str(error)
        return None
    if (value in values) if values else not equals:
        return None
    return ", ".join(f"{option}={right}" for right in values) or f"'{option}' without a value"
