"""Programs that probes run, mixprof's command among them, and what its records say."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acceptance.frame import patience
from acceptance.probes import ROOT, die_with_parent


def command(
    arguments: list[str], limit_s: float, *, where: Path = ROOT, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end or its time; it ends with the probe, too. What it prints goes to the log as well."""
    done = subprocess.run(
        arguments, cwd=where, env={**os.environ, **(variables or {})}, capture_output=True, text=True,
        timeout=limit_s, preexec_fn=die_with_parent,
    )  # fmt: skip
    print(f"$ {' '.join(arguments)}\n{done.stdout[-4000:]}\n{done.stderr[-8000:]}\n= {done.returncode}", flush=True)
    return done


def mixprof(*arguments: str, limit_s: float, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a command of this checkout's mixprof; `more` as `command` has it."""
    return command([sys.executable, "-m", "mixprof", *arguments], limit_s, **more)


def of(device: str) -> tuple[str, ...]:
    """Options for a device. Work of others changes nothing of a simulated one's times: no launch is repeated for it."""
    return ("--devices", device, *(("--max-lost-cpu", "1") if device.startswith("sim") else ()))


def sweep(device: str, *axes: str, limit_s: float, **more: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """The records of a quick sweep, the anchor's left out, and what went wrong with the sweep as a whole."""
    limit_s *= patience(device)
    with tempfile.TemporaryDirectory(prefix="acceptance-run-") as folder:
        run = Path(folder) / "run"
        try:
            done = mixprof("sweep", *axes, *of(device), "--quick", "--out", str(run), limit_s=limit_s, **more)
            wrong = [f"the sweep ended with {done.returncode}: {done.stderr.strip()[-300:]}"] if done.returncode else []
        except subprocess.TimeoutExpired:
            wrong = [f"the sweep was not done after {limit_s:g} s"]
        file = run / "records.jsonl"
        records = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [record for record in records if not record["case"]["model"].startswith("anchor")], wrong


def label(record: Mapping[str, Any]) -> str:
    """A record's case in a few words: "swin_t eager 224 b1"."""
    case = record["case"]
    return f"{case['model']} {case['lowering']} {case['resolution'][0]} b{case['batch']}"


def median_ms(record: Mapping[str, Any], name: str = "gpu_ms") -> float | None:
    """The median of a time over all launches of a record."""
    taken = [sample for launch in record["launches"] if launch.get(name) for sample in launch[name]["samples"]]
    return statistics.median(taken) if taken else None
