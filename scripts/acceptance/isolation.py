"""Whether a server that loaded torch forks processes that use CUDA, and stays without any of it itself."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from acceptance.commands import of
from acceptance.frame import Seen
from acceptance.probes import ROOT, die_with_parent

SMALL = ("--dtypes", "float32", "--resolutions", "14")
POISONED = """
import os, sys, torch
torch.cuda.init()
child = os.fork()
if child == 0:
    try:
        torch.zeros(1, device=sys.argv[1])
    except RuntimeError as error:
        print(error)
        os._exit(3)
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def touched(process: int) -> list[str]:
    """What of CUDA a process has mapped or open: the driver's library and the devices' files."""
    parts = {line.split(maxsplit=5)[-1].strip() for line in Path(f"/proc/{process}/maps").read_text().splitlines()}
    for number in Path(f"/proc/{process}/fd").iterdir():
        try:
            parts.add(os.readlink(number))
        except OSError:
            continue
    return sorted(part for part in parts if part.startswith("/dev/nvidia") or "/libcuda.so" in part)


def server(device: str) -> Seen:
    """The server of these probes, which has torch loaded."""
    loaded = "torch" in sys.modules
    parts = touched(os.getppid())
    wrong = [f"the server has mapped or open: {', '.join(parts)}"] if parts else []
    return Seen({"torch_loaded": loaded, "touched": len(parts)}, wrong=tuple(wrong))


def child(device: str) -> Seen:
    """CUDA begun in a forked process: how long it takes, that it computes, and that the server stays clean."""
    import torch

    start = time.perf_counter()
    torch.cuda.set_device(device)
    total = torch.arange(1000, device=device).sum().item()
    first_s = time.perf_counter() - start
    mine, parts = touched(os.getpid()), touched(os.getppid())
    wrong = [f"a sum on the device is {total}, not 499500"] if total != 499500 else []
    wrong += ["this process uses CUDA and shows no trace of it: the check sees nothing"] if not mine else []
    wrong += [f"the server has mapped or open: {', '.join(parts)}"] if parts else []
    return Seen({"context_s": first_s, "own": len(mine)}, {"context_s": [first_s]}, tuple(wrong), {"own": mine})


def poisoned(device: str) -> Seen:
    """Why it matters: a process that began CUDA and forks leaves its child without it."""
    done = subprocess.run([sys.executable, "-c", POISONED, device], capture_output=True, text=True, timeout=60,
                          preexec_fn=die_with_parent)  # fmt: skip
    return Seen({"exit": done.returncode, "message": done.stdout.strip()[:300]})


def product(device: str) -> Seen:
    """`mixprof time` while it runs: the processes that have CUDA are its launches, never the command or its servers."""
    arguments = [sys.executable, "-m", "mixprof", "time", "depthwise_conv", *of(device), "--quick", *SMALL]
    began: dict[int, int] = {}  # process -> its parent
    with_cuda: set[int] = set()
    running = subprocess.Popen(arguments, cwd=ROOT, stdout=sys.stdout, stderr=sys.stderr, preexec_fn=die_with_parent)
    while running.poll() is None:
        tree = descendants(running.pid)
        began |= tree
        for process in (running.pid, *tree):
            try:
                with_cuda |= {process} if touched(process) else set()
            except OSError:
                continue
        time.sleep(0.02)
    leaves = set(began) - set(began.values())
    parents = sorted(with_cuda - leaves)
    wrong = [f"mixprof time ended with {running.returncode}"] if running.returncode else []
    wrong += [f"{len(parents)} process(es) that start others have CUDA mapped"] if parents else []
    if not device.startswith("sim") and not with_cuda:
        wrong.append("no process had CUDA mapped, though one measured on the device")
    return Seen(
        {"processes": len(began) + 1, "with_cuda": len(with_cuda), "parents_with_cuda": len(parents)},
        wrong=tuple(wrong),
    )


def descendants(process: int) -> dict[int, int]:
    """The processes below one, each with its parent."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    tree: dict[int, int] = {}
    level = {process}
    while level:
        below = {each: parent for each, parent in parents.items() if parent in level}
        tree |= below
        level = set(below)
    return tree
