"""Typed nouns out of JSON values, strictly, and back."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pytest

from mixprof.data.json import Message, decode, to_builtins


class Inner(Message, frozen=True):
    number: float
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outer:
    count: int
    status: Literal["ok", "oom"] = "ok"
    inner: Inner | None = None
    pair: tuple[int, str] | None = None
    of: dict[str, tuple[float, ...]] = field(default_factory=dict)
    free: Any = None


WHOLE = {
    "count": 3,
    "status": "oom",
    "inner": {"number": 2, "words": ["a", "b"]},
    "pair": [1, "x"],
    "of": {"a": [1, 2.5]},
    "free": {"any": [None, {"thing": True}]},
}


def test_json_becomes_nouns_and_goes_back():
    noun = decode(WHOLE, Outer)
    assert noun == Outer(
        3, "oom", Inner(2.0, ("a", "b")), (1, "x"), {"a": (1.0, 2.5)}, {"any": [None, {"thing": True}]}
    )
    assert isinstance(noun.of["a"][0], float)
    assert decode(to_builtins(noun), Outer) == noun
    assert decode({"count": 1}, Outer) == Outer(1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"count": 1.0}, r"got float at \$.count, expected int"),
        ({"count": True}, r"got bool at \$.count, expected int"),
        ({"count": None}, r"got NoneType at \$.count"),
        ({"status": "odd"}, r"at \$.status, expected .*Literal"),
        ({"inner": {"number": 1.0, "words": ["a", 1]}}, r"got int at \$.inner.words\[1\], expected str"),
        ({"inner": {"number": "1"}}, r"got str at \$.inner.number, expected float"),
        ({"inner": {}}, r"got no 'number' at \$.inner, expected Inner"),
        (
            {"inner": {"number": 1.0, "more": 1}},
            r"got the unknown key 'more' at \$.inner, expected no other than number",
        ),
        ({"pair": [1, "x", 2]}, r"got list at \$.pair"),
        ({"of": {"a": "12"}}, r"got str at \$.of.a, expected tuple"),
        ({"of": [1]}, r"got list at \$.of, expected dict"),
        ({"another": 1}, r"got the unknown key 'another' at \$"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(change, words):
    with pytest.raises(ValueError, match=words):
        decode({**WHOLE, **change}, Outer)
    with pytest.raises(ValueError, match=r"got list at \$, expected Outer"):
        decode([WHOLE], Outer)


def test_a_message_is_frozen_and_compares():
    message = Inner(1.0)
    with pytest.raises(AttributeError):
        message.number = 2.0  # type: ignore[misc]
    assert replace(message, number=2.0) == Inner(2.0)
    assert hash(message) == hash(Inner(1.0))


def test_numbers_of_numpy_become_plain_and_a_strange_thing_is_refused():
    assert to_builtins({"a": (np.float64(1.5), np.int64(2))}) == {"a": (1.5, 2)}
    with pytest.raises(TypeError, match="got object, which JSON has not"):
        to_builtins([object()])
