"""An outcome in the words of other tools: one exporter a file, each a pure function from an outcome to text."""

import os
from collections.abc import Callable
from pathlib import Path

from mixprof.data.files import write_whole
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
    real, summary = Path(os.path.realpath(path)), os.environ.get(SUMMARY)
    is_summary = bool(summary) and os.path.realpath(summary or "") == str(real)
    content = text.encode("utf-8", "backslashreplace")
    if is_summary or (real.exists() and not real.is_file()):
        with real.open("ab") as file:
            file.write(content)
        return
    try:
        write_whole(real, content)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
