"""What an artifact costs where it is deployed: a process of its own that loads it and runs it once."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict

from mixprof.data.launch import Deployment
from mixprof.metrics import Subject

TIMEOUT_S = 300.0


def measure(subject: Subject) -> Deployment | None:
    """Cold start, import, load, first inference and peak memory, the artifact's file in the page cache.

    None for a lowering without an artifact that a process could load.
    """
    order = subject.lowered.cold
    if order is None:
        return None
    command = [sys.executable, "-m", "mixprof.lowerings.cold"]
    start = time.monotonic()  # one clock for all processes of a machine
    try:
        done = subprocess.run(
            command, input=json.dumps(asdict(order)), capture_output=True, text=True, cwd="/", timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return Deployment(reason=f"no result within {TIMEOUT_S:.0f} s")
    if done.returncode:
        return Deployment(reason=(done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:300])
    values = json.loads(done.stdout.splitlines()[-1])
    return Deployment(cold_start_s=values.pop("ended") - start, **values)
