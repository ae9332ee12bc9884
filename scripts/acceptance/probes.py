"""Probes: functions run in processes forked from one server, which has torch loaded and has touched no CUDA.

A process each since a CUDA error sticks to its process, and since a probe that hangs must be ended alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import pickle
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from acceptance.frame import Check, Result, Seen, Skipped

ROOT = Path(__file__).parents[2]
PATHS = (ROOT / "src", ROOT / "scripts")
PRELOADED = ("torch", "mixprof.data.record", "mixprof.lowerings", "mixprof.metrics.latency")  # none may touch CUDA
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


class Server:
    """A process that forks the probes, begun with the first of them: `serve` below. It ends with this one."""

    def __init__(self, log: Path):
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, check: Check, device: str, limit_s: float) -> Result:
        """What becomes of a check whose process is given `limit_s` seconds."""
        start = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="acceptance-") as folder:
            log, target = Path(folder) / "log", Path(folder) / "answer"
            ended = self._fork((check, device, str(log), str(target)), limit_s)
            said = log.read_text(errors="replace") if log.exists() else ""
            outcome, content = pickle.loads(target.read_bytes()) if target.exists() else _without(ended, limit_s, said)
        seconds = time.monotonic() - start
        with open(self.log, "a") as file:
            file.write(f"== {check.name}: {outcome} after {seconds:.1f} s\n{said[-LOG_CHARACTERS:]}\n")
        return _result(check, device, outcome, content, seconds)

    def _fork(self, request: tuple[object, ...], limit_s: float) -> int | None:
        """Have a probe run to its end; its exit code, None when its time was over."""
        if self._process is None or self._process.poll() is not None:
            arguments = [sys.executable, "-c", "from acceptance.probes import serve; serve()"]
            self._process = subprocess.Popen(
                arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=die_with_parent
            )
        given, answers = self._process.stdin, self._process.stdout
        assert given is not None
        assert answers is not None
        pickle.dump(request, given)
        given.flush()
        child = int(answers.readline())
        ended = bool(select.select([answers], [], [], limit_s)[0])
        if not ended:
            end(child)
        code = int(answers.readline())
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what it left running
        return code if ended else None


def _without(code: int | None, limit_s: float, said: str) -> tuple[str, str]:
    """The outcome of a probe that gave no answer."""
    if code is None:
        return "timeout", f"not done after {limit_s:g} s"
    last = next((line for line in reversed(said.splitlines()) if line.strip()), "it printed nothing")
    return "failed", f"the probe ended with {code}: {last[:500]}"


def _result(check: Check, device: str, outcome: str, content: object, seconds: float) -> Result:
    at = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    if not isinstance(content, Seen):
        return Result(check.name, outcome, str(content), seconds, device, at)
    outcome = "failed" if content.wrong else "passed"
    return Result(check.name, outcome, "; ".join(content.wrong) or None, seconds, device, at, content)


def end(leader: int) -> None:
    """End a probe that runs, and all that it began."""
    for kill in (os.killpg, os.kill):  # the group may not be there yet
        with contextlib.suppress(ProcessLookupError):
            kill(leader, signal.SIGKILL)


def serve() -> None:
    """Fork a process for each request on standard input; answer with its number, then with its exit code."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the script's own end ends this
    for name in PRELOADED:
        with contextlib.suppress(Exception):  # what is missing fails the probes that need it
            importlib.import_module(name)
    while True:
        try:
            request = pickle.load(requests)
        except EOFError:
            return
        child = os.fork()
        if child == 0:
            _child(*request)
        answers.write(f"{child}\n")
        _, status = os.waitpid(child, 0)
        answers.write(f"{os.waitstatus_to_exitcode(status)}\n")


def _child(check: Check, device: str, log: str, target: str) -> None:
    """Run a probe in this process and leave its answer in a file, whole or not at all. Never returns."""
    try:
        os.setpgid(0, 0)
        die_with_parent()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        part = Path(f"{target}.part")
        part.write_bytes(pickle.dumps(answer(check, device)))
        part.replace(target)
        sys.stdout.flush()
    finally:
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
