"""What other processes took from a launch, from the kernel's own accounting (Linux)."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

TRIES = 3  # of a launch that lost too much of its CPU time; then it is flagged


@dataclass(frozen=True)
class Reading:
    """Counters at one moment, in seconds since some start."""

    wall_s: float
    ran_s: float  # this process's threads on a CPU
    waited_s: float  # this process's threads ready to run, another one running
    stolen_s: float  # by the hypervisor, all CPUs together
    busy_s: float  # everybody's time on all CPUs


def read() -> Reading | None:
    """The counters now; None where the kernel does not keep them."""
    try:
        tasks = [Path(entry.path, "schedstat").read_text().split() for entry in os.scandir("/proc/self/task")]
        first_line = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    except OSError:
        return None
    ran, waited = (sum(int(task[field]) for task in tasks) / 1e9 for field in (0, 1))
    ticks = [int(field) / os.sysconf("SC_CLK_TCK") for field in first_line[1:]]  # proc(5): user, nice, system, idle, …
    stolen = ticks[7] if len(ticks) > 7 else 0.0
    busy = sum(ticks[index] for index in (0, 1, 2, 5, 6) if index < len(ticks))
    return Reading(time.perf_counter(), ran, waited, stolen, busy)


def lost_share(before: Reading | None, after: Reading | None) -> float | None:
    """The share of the time its threads wanted to run that a process did not: queued behind others, or stolen."""
    if before is None or after is None:
        return None
    ran = after.ran_s - before.ran_s
    lost = after.waited_s - before.waited_s + after.stolen_s - before.stolen_s
    return max(0.0, lost / (ran + lost)) if ran + lost > 0 else 0.0


def others_cpus(before: Reading | None, after: Reading | None) -> float | None:
    """CPUs that all other processes kept busy, on average; in a container that sees its host, the host's too."""
    if before is None or after is None or after.wall_s <= before.wall_s:
        return None
    others = after.busy_s - before.busy_s - (after.ran_s - before.ran_s)
    return max(0.0, others / (after.wall_s - before.wall_s))


def oom_kills() -> int | None:
    """How many processes the kernel's out-of-memory killer has ended since boot; None where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)
