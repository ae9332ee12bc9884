"""Options in a model's name, `package.module:factory:classes=4`, in the types that the factory's parameters have."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_args

from mixprof.data.errors import Unsupported

Kinds = tuple[type, ...]
SWITCHES = {"true": True, "1": True, "false": False, "0": False}
GUESSED: Kinds = (int, float, bool, str)  # one after the other, where a parameter does not say


def kinds_of(factory: Callable[..., Any], name: str) -> Kinds:
    """What a parameter takes by its annotation, else by its default; GUESSED where neither says it."""
    try:
        parameter = inspect.signature(factory, eval_str=True).parameters.get(name)
    except (NameError, TypeError, ValueError, SyntaxError):  # an annotation that only a type checker can resolve
        parameter = _unresolved(factory, name)
    if parameter is None:
        return GUESSED
    annotation = parameter.annotation
    if (kinds := [kind for kind in get_args(annotation) or (annotation,) if kind in GUESSED]) != []:
        return tuple(kinds)
    has_default = parameter.default is not parameter.empty and parameter.default is not None
    return (type(parameter.default),) if has_default else GUESSED


def _unresolved(factory: Callable[..., Any], name: str) -> inspect.Parameter | None:
    try:
        parameter = inspect.signature(factory).parameters.get(name)
    except (TypeError, ValueError):
        return None
    return parameter and parameter.replace(annotation=parameter.empty)


def typed(name: str, text: str, kinds: Kinds) -> Any:
    """The value that an option's text stands for, read as the first of these kinds that can; else Unsupported."""
    for kind in kinds:
        if kind is bool and text.lower() in SWITCHES:
            return SWITCHES[text.lower()]
        if kind in (int, float):
            try:
                return kind(text)
            except ValueError:
                continue
        if kind not in (bool, int, float):
            return text
    raise Unsupported(f"{name}: got '{text}', expected {' or '.join(kind.__name__ for kind in kinds)}")
