"""An outcome in the words of other tools: one exporter a file, each a pure function from an outcome to text."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from mixprof.reports.gate.exporters.bencher import as_bencher
from mixprof.reports.gate.exporters.benchmark_action import as_benchmark_action
from mixprof.reports.gate.exporters.github import as_annotations
from mixprof.reports.gate.exporters.junit import as_junit
from mixprof.reports.gate.exporters.markdown import as_markdown
from mixprof.reports.gate.outcome import Outcome, Policy

__all__ = ["EXPORTERS", "as_annotations", "write"]

EXPORTERS: dict[str, Callable[[Outcome, Policy], str]] = {  # by the name of the option that asks for it
    "junit": as_junit,
    "markdown": as_markdown,
    "bencher": as_bencher,
    "benchmark_json": as_benchmark_action,
}
SUMMARY = "GITHUB_STEP_SUMMARY"  # the variable that names a file to which every step appends


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all; a step summary and what is no regular file are appended to. OSError if not."""
    # A link is followed: what it points to is replaced, not the link.
    real = Path(os.path.realpath(path))
    if _is_summary(real) or (real.exists() and not real.is_file()):
        with real.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        return
    temporary = real.with_name(f".{real.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, real)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def _is_summary(real: Path) -> bool:
    summary = os.environ.get(SUMMARY)
    return bool(summary) and os.path.realpath(summary or "") == str(real)
