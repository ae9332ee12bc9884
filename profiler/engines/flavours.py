"""The two packages that build engines, imported where they are used."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from profiler.types import Unavailable

INSTALL = {
    "tensorrt": "pip install 'mixprof[tensorrt]'",
    "tensorrt_rtx": "pip install 'mixprof[rtx]'",
}


def load(name: str) -> Any:
    """The package "tensorrt" or "tensorrt_rtx"; Unavailable with the command that installs it."""
    if not is_installed(name):
        raise Unavailable(f"lowering '{name}': {name} is not installed: {INSTALL[name]}")
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Unavailable(f"lowering '{name}': {name} cannot be imported ({error}): {INSTALL[name]}") from error


def is_installed(package: str) -> bool:
    """Whether a package can be imported. Stubs alone leave a folder of its name, which is none."""
    found = importlib.util.find_spec(package)
    return found is not None and found.origin is not None


def other_installed(name: str) -> str | None:
    """The other flavour where that one is installed and this one is not."""
    others = [each for each in INSTALL if each != name and is_installed(each)]
    return others[0] if others and not is_installed(name) else None


def messages(trt: Any) -> Any:
    """A logger that keeps what TensorRT says: `lines` of (severity, text), severity "ERROR", "WARNING", …"""

    class Messages(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[tuple[str, str]] = []

        def log(self, severity: Any, text: str) -> None:
            self.lines.append((str(severity).rsplit(".", 1)[-1], text))

        def errors(self) -> str:
            """What went wrong, in TensorRT's own words, on one line."""
            wrong = [text for severity, text in self.lines if severity in ("ERROR", "INTERNAL_ERROR")]
            return " ".join(" | ".join(dict.fromkeys(wrong)).split())[:800]

    return Messages()
