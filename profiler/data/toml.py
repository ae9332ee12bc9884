"""TOML, by whichever reader this Python has."""

import importlib
import sys
from typing import Any


def decode(text: str) -> dict[str, Any]:
    """The tables of a file's text; ValueError for what is no TOML."""
    tables: dict[str, Any] = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli").loads(text)
    return tables
