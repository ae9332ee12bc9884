"""The two packages that build engines, imported where they are used, and what is asked of either."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any, Protocol, cast

from mixprof.data.errors import Unavailable

INSTALL = {
    "tensorrt": "pip install 'mixprof[tensorrt]'",
    "tensorrt_rtx": "pip install 'mixprof[rtx]'",
}

if TYPE_CHECKING:
    import tensorrt as stubs

    class Messages(stubs.ILogger):
        """A logger that keeps what TensorRT says: (severity, text), severity "ERROR", "WARNING", …"""

        lines: list[tuple[str, str]]

        def errors(self) -> str: ...  # what went wrong, in TensorRT's own words, on one line

    class Names(Protocol):
        """Of the module of either flavour, what both have: mypy holds it against the stubs of TensorRT 10.

        What one flavour alone has is asked for with `hasattr`, which mypy takes for an answer.
        """

        Builder: type[stubs.Builder]
        BuilderFlag: type[stubs.BuilderFlag]
        Dims: type[stubs.Dims]
        LayerInformationFormat: type[stubs.LayerInformationFormat]
        MemoryPoolType: type[stubs.MemoryPoolType]
        NetworkDefinitionCreationFlag: type[stubs.NetworkDefinitionCreationFlag]
        OnnxParser: type[stubs.OnnxParser]
        ProfilingVerbosity: type[stubs.ProfilingVerbosity]
        Runtime: type[stubs.Runtime]
        TensorIOMode: type[stubs.TensorIOMode]
        TensorLocation: type[stubs.TensorLocation]

    class TensorRT(Names, Protocol):
        @property
        def __version__(self) -> str: ...  # no name of a protocol that mypy asks of a module

    _checked_by_mypy: Names = stubs


def load(name: str) -> TensorRT:
    """The package "tensorrt" or "tensorrt_rtx"; Unavailable with the command that installs it."""
    if not is_installed(name):
        raise Unavailable(f"lowering '{name}': {name} is not installed: {INSTALL[name]}")
    try:
        return cast("TensorRT", importlib.import_module(name))
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


def messages(trt: TensorRT) -> Messages:
    """A logger of this flavour that keeps what TensorRT says."""
    package: Any = trt  # no attribute of a protocol is a base class to mypy

    class Kept(package.ILogger):
        def __init__(self) -> None:
            package.ILogger.__init__(self)
            self.lines: list[tuple[str, str]] = []

        def log(self, severity: Any, text: str) -> None:
            self.lines.append((str(severity).rsplit(".", 1)[-1], text))

        def errors(self) -> str:
            wrong = [text for severity, text in self.lines if severity in ("ERROR", "INTERNAL_ERROR")]
            return " ".join(" | ".join(dict.fromkeys(wrong)).split())[:800]

    return cast("Messages", Kept())
