"""The parent's side of a fork server: start it, send it a job, wait, end what overruns."""

import contextlib
import itertools
import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mixprof.data.imports import Imports
from mixprof.data.json import Json, decode, line
from mixprof.data.messages import Progress
from mixprof.machine.cpu_contention import oom_kills
from mixprof.machine.process import inherited, worker_environment
from mixprof.plan.axes import Source
from mixprof.worker.imports import ROOTS

OURS = str(Path(__file__).absolute().parents[2])  # the folder that `import mixprof` finds us in
START_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Outcome:
    """How a job ended: what it returned, or how its process died."""

    values: Json  # has "status" and "reason" when there is nothing else
    wall_s: float  # as the parent saw it


@dataclass(frozen=True)
class Running:
    """A job that was begun."""

    result: Path
    log: Path
    start: float
    oom_kills: int | None


class ServerDied(Exception):
    """The fork server itself ended."""


def source_request(source: Source) -> Json:
    """A source as a worker is told of it."""
    fields = asdict(source)
    del fields["check"], fields["facts"]
    return fields


@dataclass(frozen=True)
class Origin:
    """Whose code a server runs."""

    python: str = sys.executable  # interpreter
    path: tuple[str, ...] = ()  # first on its module path
    folder: Path | None = None  # the current one of its jobs; None: that of this process
    roots: tuple[str, ...] = ()  # user code is imported from here, before everything else; none: from that folder


class Server:
    """A process that has imported what the jobs need and forks one process for each of them."""

    def __init__(
        self, scratch: Path, preload: tuple[str, ...], threads: int, allocator: str, side: Origin | None = None
    ):
        """preload: modules imported once; side: whose interpreter and code, this process's own by default."""
        side = side or Origin()
        scratch.mkdir(parents=True, exist_ok=True)
        self.scratch = scratch = scratch.resolve()  # the server's current folder is another one
        self.threads, self.allocator, self.folder = threads, allocator, side.folder
        self.imports: set[Imports] = set()  # of the models of users that its jobs have run
        self._number = itertools.count()
        self._pid: int | None = None
        self._errors = (scratch / "server.log").open("ab")
        command = [side.python, "-m", "mixprof.worker.server", "--serve", "--preload", ",".join(preload)]
        environment = {**inherited(), **_module_path(side.path), ROOTS: os.pathsep.join(side.roots)}
        environment |= worker_environment(threads, allocator, scratch / "cache")
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._errors}
        # The scratch folder as current folder: nothing of the user's can shadow a module of ours.
        self._process: subprocess.Popen[bytes] = subprocess.Popen(command, cwd=scratch, env=environment, **pipes)
        self._buffer = b""
        try:
            if self._answer(START_TIMEOUT_S) is None:
                raise ServerDied(f"got no answer from a worker server within {START_TIMEOUT_S:.0f} s")
        except BaseException:
            self.close()
            raise

    def run(self, job: str, timeout_s: float, **request: Any) -> Outcome:
        """Run one job in a process of its own; ended when it takes longer than `timeout_s`."""
        return self.finish(self.begin(job, **request), timeout_s)

    def begin(self, job: str, **request: Any) -> Running:
        """Start one job in a process of its own. The next one waits for its `finish`."""
        name = self.scratch / f"job-{os.getpid()}-{next(self._number)}"
        result, log = name.with_suffix(".json"), name.with_suffix(".log")
        fields = {"job": job, "result": str(result), "log": str(log), "cwd": str(self.folder or os.getcwd()), **request}
        fields |= {"threads": self.threads, "allocator": self.allocator, "cache": str(self.scratch / "cache")}
        running = Running(result, log, time.perf_counter(), oom_kills())
        try:
            assert self._process.stdin is not None
            try:
                self._process.stdin.write(line(fields))
                self._process.stdin.flush()
            except BrokenPipeError as error:
                raise ServerDied("a worker server closed its pipe") from error
            started = self._answer(START_TIMEOUT_S)
            if started is None:
                raise ServerDied("a worker server did not start a job")
            self._pid = started.pid
        except BaseException:
            self._forget(running)
            raise
        return running

    def finish(self, running: Running, timeout_s: float) -> Outcome:
        """Wait for a job that was begun; ended when it takes longer than `timeout_s` from now."""
        try:
            ended, timed_out = self._ended(timeout_s)
            values = _read_result(running.result, running.log, ended, timed_out, timeout_s)
            if ended == -signal.SIGKILL and not timed_out and oom_kills() != running.oom_kills:
                values = {"status": "oom", "reason": "the worker was ended by the kernel's out-of-memory killer"}
        finally:
            self._forget(running)
        if imports := values.pop("imports", None):
            self.imports.add(Imports.from_json(imports))
        return Outcome(values, time.perf_counter() - running.start)

    def _forget(self, running: Running) -> None:
        self._pid = None
        for path in (running.result, running.log):
            with contextlib.suppress(OSError):
                path.unlink()

    def _ended(self, timeout_s: float) -> tuple[int, bool]:
        """The exit code of the job that runs, and whether it was ended for its time."""
        ended = self._answer(timeout_s)
        timed_out = ended is None
        if timed_out:
            self.kill_job()
            ended = self._answer(START_TIMEOUT_S)
        if ended is None or ended.exit is None:
            raise ServerDied("a job could not be ended")
        return ended.exit, timed_out

    @property
    def busy(self) -> bool:
        """Whether a job was begun and is not finished."""
        return self._pid is not None

    @property
    def ended(self) -> bool:
        """Whether the server itself is gone."""
        return self._process.poll() is not None

    @property
    def descriptor(self) -> int:
        """Readable when the job that runs has ended, or the server has."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def pause(self) -> None:
        """Stop the job that runs now, every thread of it, until `resume`."""
        self._signal_job(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal_job(signal.SIGCONT)

    def _signal_job(self, number: signal.Signals) -> None:
        if self._pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._pid, number)

    def kill_job(self) -> None:
        """End the job that runs now, with everything it started."""
        self._signal_job(signal.SIGKILL)

    def _answer(self, timeout_s: float) -> Progress | None:
        """The server's next line, or None when none came in time."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout_s
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return None
            chunk = os.read(descriptor, 65536)
            if not chunk:
                raise ServerDied(f"a worker server ended: {_last_line(self.scratch / 'server.log')}")
            self._buffer += chunk
        text, self._buffer = self._buffer.split(b"\n", 1)
        return decode(json.loads(text), Progress)

    def close(self) -> None:
        """End the server and whatever it runs."""
        self.kill_job()
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._errors.close()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _module_path(path: tuple[str, ...]) -> dict[str, str]:
    """The PYTHONPATH of a server, which runs elsewhere: our own folder by its whole name."""
    before = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    before = [OURS if os.path.abspath(folder) == OURS else folder for folder in before]
    return {"PYTHONPATH": os.pathsep.join((*path, *before))} if path or before else {}


def _read_result(result: Path, log: Path, ended: int, timed_out: bool, timeout_s: float) -> Json:
    if timed_out:
        return {"status": "timeout", "reason": f"not done after {timeout_s:g} s; --timeout allows more"}
    if ended == 0 and result.exists():
        values: Json = json.loads(result.read_text())
        return values
    how = f"killed by {signal.Signals(-ended).name}" if ended < 0 else f"ended with exit code {ended}"
    last = _last_line(log)
    return {"status": "crashed", "reason": f"the worker was {how}" + (f": {last}" if last else "")}


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1][:500] if lines else ""
