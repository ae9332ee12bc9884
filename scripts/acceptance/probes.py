"""Probes: functions run in processes forked from one server, which has torch loaded and has touched no CUDA.

A process each since a CUDA error sticks to its process, and since a probe that hangs must be ended alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from acceptance.frame import Check, Result, Seen, Skipped

ROOT = Path(__file__).parents[2]
PATHS = (ROOT / "src", ROOT / "scripts")
LOG_CHARACTERS = 20_000  # of one probe, its end
PR_SET_PDEATHSIG = 1


def set_paths() -> None:
    """Let this checkout be imported by every process from here on, whichever one is installed."""
    sys.path[:0] = [str(path) for path in PATHS if str(path) not in sys.path]
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([*map(str, PATHS), *filter(None, inherited)]))


def die_with_parent() -> None:
    """Ask the kernel to end this process when the one that made it ends (Linux)."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def command(
    arguments: list[str], limit_s: float, variables: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end or its time; it ends with the probe, too. Its error output goes to the log as well."""
    done = subprocess.run(arguments, cwd=ROOT, env={**os.environ, **(variables or {})}, capture_output=True, text=True,
                          timeout=limit_s, preexec_fn=die_with_parent)  # fmt: skip
    print(f"$ {' '.join(arguments)}\n{done.stdout[-4000:]}\n{done.stderr[-8000:]}\n= {done.returncode}", flush=True)
    return done


class Server:
    """What forks the probes. Started with the first one."""

    def __init__(self, log: Path):
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["acceptance.preload"])
        self.log = log

    def run(self, check: Check, device: str, limit_s: float) -> Result:
        """What becomes of a check whose process is given `limit_s` seconds."""
        start = time.monotonic()
        receiver, sender = self.context.Pipe(duplex=False)
        with tempfile.NamedTemporaryFile(prefix="acceptance-") as log:
            process = self.context.Process(target=_child, args=(sender, check, device, log.name))
            process.start()
            sender.close()
            try:
                outcome, content = _answer(receiver, limit_s)
            finally:
                end(process.pid)
                process.join()
            said = Path(log.name).read_text(errors="replace")
        if outcome == "ended":
            last = next((line for line in reversed(said.splitlines()) if line.strip()), "it said nothing")
            outcome, content = "failed", f"the probe ended with {process.exitcode}: {last[:500]}"
        seconds = time.monotonic() - start
        self._append(f"== {check.name}: {outcome} after {seconds:.1f} s\n{said[-LOG_CHARACTERS:]}\n")
        return _result(check, device, outcome, content, seconds)

    def _append(self, text: str) -> None:
        with open(self.log, "a") as file:
            file.write(text)


def _answer(receiver: Connection, limit_s: float) -> tuple[str, object]:
    """What a probe sends before its time is over."""
    if not receiver.poll(limit_s):
        return "timeout", f"not done after {limit_s:.0f} s"
    try:
        outcome, content = receiver.recv()
    except EOFError:
        return "ended", None
    return outcome, content


def _result(check: Check, device: str, outcome: str, content: object, seconds: float) -> Result:
    at = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    if not isinstance(content, Seen):
        return Result(check.name, outcome, str(content), seconds, device, at)
    outcome = "failed" if content.wrong else "passed"
    return Result(check.name, outcome, "; ".join(content.wrong) or None, seconds, device, at, content)


def end(leader: int | None) -> None:
    """End a probe and all that it began."""
    assert leader is not None
    for kill in (os.killpg, os.kill):  # the group may not be there yet
        with contextlib.suppress(ProcessLookupError):
            kill(leader, signal.SIGKILL)


def _child(sender: Connection, check: Check, device: str, log: str) -> None:
    """Run a probe in this process and send what it saw, or why it saw nothing."""
    os.setpgid(0, 0)
    die_with_parent()
    target = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(target, 1)
    os.dup2(target, 2)
    sender.send(answer(check, device))
    sys.stdout.flush()
    os._exit(0)  # a broken driver may hang whatever a library does at exit


def answer(check: Check, device: str) -> tuple[str, Seen | str]:
    """A probe's outcome and what it saw, in this process."""
    try:
        seen: Seen = resolve(check.probe)(device, **check.arguments)
    except Skipped as reason:
        return "skipped", str(reason)
    except Exception as error:
        traceback.print_exc()
        return "failed", f"{type(error).__name__}: {' '.join(str(error).split())[:600]}"
    return "seen", seen


def resolve(name: str) -> Callable[..., Seen]:
    module, _, function = name.partition(":")
    probe: Callable[..., Seen] = getattr(importlib.import_module(module), function)
    return probe
