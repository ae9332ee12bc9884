"""People's factories whose modules have weights that all matter: `awake:NAME` is the kind NAME, awakened."""

import functools
import importlib
from collections.abc import Callable
from typing import Any

from breaking import awakened
from people import KINDS

MODULES = {kind.model.split(":")[1]: kind.model.split(":")[0] for kind in KINDS if kind.macs is not None}


def __getattr__(name: str) -> Callable[..., Any]:
    if name not in MODULES:
        raise AttributeError(name)
    factory = getattr(importlib.import_module(MODULES[name]), name)

    @functools.wraps(factory)
    def made(*args: Any, **kwargs: Any) -> Any:
        product = factory(*args, **kwargs)
        awakened((product[0] if isinstance(product, tuple) else product).requires_grad_(False))
        return product

    return made
