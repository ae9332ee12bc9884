"""JSON and the nouns that stand for it: decoded strictly, written without NaN."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")
Json = dict[str, Any]  # an object whose keys its writer alone knows, as a lowering's proof


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A JSON object with known keys, on disk or between processes."""


def to_builtins(value: object) -> Any:
    """JSON values of a noun, or of nouns in lists and dicts; numpy's numbers become plain ones."""
    return msgspec.to_builtins(value, enc_hook=_number)


def _number(value: object) -> object:
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"got {type(value).__name__}, which JSON has not")


def decode(fields: object, of: type[T]) -> T:
    """The noun that these JSON values stand for; ValueError for a wrong type, an absent or an unknown key."""
    return msgspec.convert(fields, of)


def refuse_unknown(fields: Mapping[str, object], known: Iterable[str]) -> None:
    """Raise ValueError for a key that the noun has not: a frozen dataclass would drop it unseen."""
    if unknown := sorted(set(fields) - set(known)):
        raise ValueError(f"got the unknown key '{unknown[0]}', expected no other than {', '.join(known)}")


def line(fields: object) -> bytes:
    """One line of JSON. ValueError for NaN and infinity, which JSON has not."""
    return json.dumps(fields, allow_nan=False).encode() + b"\n"


def digest(value: object) -> str:
    """Sixteen hexadecimal digits that are the same for equal JSON values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
