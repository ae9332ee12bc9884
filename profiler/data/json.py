"""JSON and the nouns that stand for it: decoded strictly, written without NaN."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from mixprof.data import typed

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_: object) -> Any:
        return lambda decorated: decorated


T = TypeVar("T")
Json = dict[str, Any]  # an object whose keys its writer alone knows, as a lowering's proof


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
class Message:
    """A JSON object with known keys, on disk or between processes: a frozen dataclass."""

    def __init_subclass__(cls, frozen: bool = True) -> None:
        dataclass(frozen=frozen)(cls)


def to_builtins(value: object) -> Any:
    """JSON values of a noun, or of nouns in lists and dicts; numpy's numbers become plain ones."""
    return typed.builtins(value)


def decode(fields: object, of: type[T]) -> T:
    """The noun that these JSON values stand for; ValueError for a wrong type, an absent or an unknown key."""
    value: T = typed.convert(fields, of)
    return value


def line(fields: object) -> bytes:
    """One line of JSON. ValueError for NaN and infinity, which JSON has not."""
    return json.dumps(fields, allow_nan=False).encode() + b"\n"


def digest(value: object) -> str:
    """Sixteen hexadecimal digits that are the same for equal JSON values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
