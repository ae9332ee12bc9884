"""Worker processes: `python -m mixprof.worker.server --serve` forks one process for each job it is sent.

The server preloads what the jobs need, loads no user code and touches no CUDA. A request is
one JSON line on standard input; the answers, on standard output, are one line with the
process id and one with how it ended. What a job returns goes into a file, whole or not at all.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mixprof.data.errors import Unavailable, Unsupported, is_out_of_memory, one_line

PR_SET_PDEATHSIG = 1


def serve(preload: list[str]) -> None:
    """Answer requests until standard input closes. Every job runs in a process forked for it."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    requests = os.fdopen(os.dup(0), "r")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt ends
    for name in preload:
        try:
            importlib.import_module(name)
        except Exception:  # a broken package fails the jobs that need it, not all of them
            traceback.print_exc()
    answers.write(json.dumps({"ready": os.getpid()}) + "\n")
    for line in requests:
        request = json.loads(line)
        server = os.getpid()
        child = os.fork()
        if child == 0:
            requests.close()
            answers.close()
            _run_child(request, server)
        answers.write(json.dumps({"pid": child}) + "\n")
        _, status = os.waitpid(child, 0)
        _kill_group(child)
        answers.write(json.dumps({"exit": os.waitstatus_to_exitcode(status)}) + "\n")


def _kill_group(leader: int) -> None:
    """End what a job left running, and wait a little for it to be gone: it must not run beside the next job."""
    try:
        os.killpg(leader, signal.SIGKILL)
        for _ in range(100):
            os.killpg(leader, 0)
            time.sleep(0.01)
    except (ProcessLookupError, PermissionError):
        return


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Ask the kernel to send this process a signal when the one that made it ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)


def _run_child(request: dict[str, Any], server: int) -> None:
    """Run one job in this process, write its result, end. Never returns."""
    code = 1
    try:
        os.setpgid(0, 0)
        die_with_parent()
        if os.getppid() != server:
            os._exit(code)  # it ended before the kernel was asked
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(request["cwd"])
        write_result(Path(request["result"]), run_job(request))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def write_result(path: Path, result: dict[str, Any]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(result))
    os.replace(temporary, path)


def run_job(request: dict[str, Any]) -> dict[str, Any]:
    """A job's values, or the status and the reason why there are none."""
    from mixprof.worker import jobs
    from mixprof.worker.imports import imported

    job: Callable[[dict[str, Any]], dict[str, Any]] = jobs.JOBS[request["job"]]
    start = time.perf_counter()
    if request.get("max_memory") is not None:
        bound_memory(request["max_memory"])
    try:
        values = job(request)
    except Unavailable as error:
        values = {"status": "unavailable", "reason": str(error)}
    except Unsupported as error:
        values = {"status": "unsupported", "reason": str(error)}
    except Exception as error:
        traceback.print_exc()
        values = {"status": "oom" if is_out_of_memory(error) else "crashed", "reason": one_line(error)}
    source = request.get("source")
    imports = {"imports": imported(source)} if source and source["user"] else {}
    return {**values, **imports, "job_s": time.perf_counter() - start}


def bound_memory(most: int) -> None:
    """Let this process allocate at most so many bytes more than it has: beyond, an allocation fails."""
    pages = int(Path("/proc/self/statm").read_text().split()[5])
    bound = pages * resource.getpagesize() + most
    resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m mixprof.worker.server", allow_abbrev=False)
    parser.add_argument("--serve", action="store_true", required=True, help="answer requests on standard input")
    parser.add_argument("--preload", default="", help="modules to import once, separated by commas")
    arguments = parser.parse_args()
    die_with_parent()
    serve([name for name in arguments.preload.split(",") if name])


if __name__ == "__main__":
    main()
