"""JSON values into typed nouns, strictly: dataclasses, tuples, dicts, unions and literals, by their annotations.

Of the standard library alone: a GPU machine without a network has torch, and little else.
"""

import dataclasses
import functools
import types
from collections.abc import Callable
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

PLAIN = (str, bool, int, float, type(None))
Check = Callable[[object, str], Any]  # a value and where it stands -> what it becomes; ValueError


def convert(value: object, kind: Any) -> Any:
    """The value as `kind` has it. ValueError for a wrong type, and for an absent or an unknown key of a dataclass."""
    return _check(kind)(value, "$")


@functools.cache
def _check(kind: Any) -> Check:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in (Any, object):
        return lambda value, where: value
    if dataclasses.is_dataclass(kind):
        return functools.partial(_noun, kind)
    if origin in (Union, types.UnionType):
        return functools.partial(_either, tuple(map(_check, arguments)))
    if origin is Literal:
        return lambda value, where: value if value in arguments else _refuse(value, kind, where)
    if origin is tuple and arguments[1:] != (...,):
        return functools.partial(_row, tuple(map(_check, arguments)), kind)
    if kind in (list, tuple) or origin in (list, tuple):
        return functools.partial(_items, origin or kind, arguments[0] if arguments else Any)
    if kind is dict or origin is dict:
        return functools.partial(_entries, arguments[1] if arguments else Any)
    if kind not in PLAIN:
        raise TypeError(f"got the type {kind}, expected a dataclass, a container, a union, a literal or a plain one")
    return functools.partial(_plain, kind)


def _refuse(value: object, kind: Any, where: str) -> Any:
    raise ValueError(f"got {type(value).__name__} at {where}, expected {getattr(kind, '__name__', None) or kind}")


def _plain(kind: type, value: object, where: str) -> object:
    """A whole number is a float, too; True is no number."""
    if type(value) is kind:
        return value
    return float(value) if kind is float and type(value) is int else _refuse(value, kind, where)


def _either(checks: tuple[Check, ...], value: object, where: str) -> Any:
    errors = []
    for check in checks:
        try:
            return check(value, where)
        except ValueError as error:
            errors.append(error)
    raise max(errors, key=lambda error: str(error).count(".") + str(error).count("["))  # the one that got furthest


def _row(checks: tuple[Check, ...], kind: Any, value: object, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)) or len(value) != len(checks):
        return _refuse(value, kind, where)
    return tuple(
        check(item, f"{where}[{index}]") for index, (check, item) in enumerate(zip(checks, value, strict=True))
    )


def _items(container: type, of: Any, value: object, where: str) -> Any:
    if not isinstance(value, (list, tuple)):
        return _refuse(value, container, where)
    if of is float and set(map(type, value)) == {float}:  # samples: thousands of them
        return container(value)
    check = _check(of)
    return container(check(item, f"{where}[{index}]") for index, item in enumerate(value))


def _entries(of: Any, value: object, where: str) -> Any:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        return _refuse(value, dict, where)
    check = _check(of)
    return {key: check(item, f"{where}.{key}") for key, item in value.items()}


@functools.cache
def _fields(kind: type) -> dict[str, tuple[Check, bool]]:
    """Of each field its check, and whether it must be there."""
    hints = get_type_hints(kind)
    missing = dataclasses.MISSING
    return {
        declared.name: (
            _check(hints[declared.name]),
            declared.default is missing and declared.default_factory is missing,
        )
        for declared in dataclasses.fields(kind)
    }


def _noun(kind: Any, value: object, where: str) -> Any:
    if not isinstance(value, dict):
        return _refuse(value, kind, where)
    fields = _fields(kind)
    if unknown := [key for key in value if key not in fields]:
        raise ValueError(f"got the unknown key '{unknown[0]}' at {where}, expected no other than {', '.join(fields)}")
    if absent := [name for name, (_, needed) in fields.items() if needed and name not in value]:
        raise ValueError(f"got no '{absent[0]}' at {where}, expected {kind.__name__}")
    return kind(**{name: fields[name][0](item, f"{where}.{name}") for name, item in value.items()})


def builtins(value: Any) -> Any:
    """JSON values of a noun, or of nouns in lists and dicts; numpy's numbers become plain ones."""
    if value is None or type(value) in PLAIN:
        return value
    if dataclasses.is_dataclass(value):
        return {declared.name: builtins(getattr(value, declared.name)) for declared in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: builtins(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        plain = type(value) if type(value) in (list, tuple) else tuple
        return plain(map(builtins, value))
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"got {type(value).__name__}, which JSON has not")
