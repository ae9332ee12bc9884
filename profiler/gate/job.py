"""An `ab` job in a process of its own, asked for by other commands and by the pytest plugin."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mixprof
from mixprof.data.errors import UsageError
from mixprof.plan.settings import AXES, MEASURE

ROOT = Path(mixprof.__file__).parents[1]
# A caller's folder may hold a `models` or a `reports` of its own: ours come first. And it ends when its caller is gone.
START = f"""
import signal, sys
sys.path.insert(0, {str(ROOT)!r})
from mixprof.cli.main import main
from mixprof.worker.server import die_with_parent
die_with_parent(signal.SIGTERM)
sys.exit(main())
"""
GRACE_S = 60.0  # to remove work trees in
REPEATED = ("threshold", "limit")  # given once for each value; any other list is one value with commas
OPTIONS = ("prepare", "exact_only", "budget", *REPEATED, *AXES, *MEASURE)


def options(given: Mapping[str, Any]) -> list[str]:
    """Options of `ab` from values by their names with underscores. None and False are not given."""
    found = []
    for name, value in given.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            found.append(option)
        elif value is not None and value is not False:
            values = list(value) if isinstance(value, (list, tuple)) else [value]
            found += [f"{option}={each}" for each in (values if name in REPEATED else [",".join(map(str, values))])]
    return found


def run(*arguments: str, folder: Path | None = None) -> dict[str, Any]:
    """The outcome of `mixprof ab … --json` as JSON values. UsageError with its own line where it refuses."""
    out, err, code = _run(("ab", *arguments, "--json"), folder)
    last = (err.strip().splitlines() or ["nothing said"])[-1].removeprefix("mixprof: ")
    if code == 2:
        raise UsageError(last)
    if not out:
        raise RuntimeError(f"`mixprof ab` ended with exit code {code}: {last}")
    outcome: dict[str, Any] = json.loads(out)
    return outcome


def _run(arguments: Sequence[str], folder: Path | None) -> tuple[str, str, int]:
    """Output, errors and exit code. What interrupts us ends it once, so that it can put its things away."""
    process = subprocess.Popen(
        [sys.executable, "-c", START, *arguments], cwd=folder, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = process.communicate()
    except BaseException:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
        process.kill()
        process.wait()
        raise
    return out, err, process.returncode


def trusted(outcome: dict[str, Any]) -> list[dict[str, Any]]:
    """The cases with their verdicts; all that was timed is inconclusive where the baseline differs from itself."""
    if (outcome["canary"] or {}).get("verdict") not in ("regressed", "improved"):
        return list(outcome["cases"])
    reason = "the baseline differs from itself: not to be trusted"
    return [{**each, "verdict": "inconclusive", "reason": reason} for each in outcome["cases"]]


def in_words(judged: Mapping[str, Any]) -> str:
    """A case's verdict: "regressed +12.0% [+10.0%, +14.0%] in 5 rounds (macs 1 -> 2)"."""
    words = [judged["verdict"]]
    if judged["change"] is not None and judged["low"] is not None:
        words.append(
            f"{judged['change']:+.1%} [{judged['low']:+.1%}, {judged['high']:+.1%}] in {judged['rounds']} rounds"
        )
    if judged["reason"]:
        words.append(f"({judged['reason']})")
    return " ".join(words)
