"""Shards as an array of Slurm jobs: through submitit, or as a script for `sbatch`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixprof.data.errors import UsageError, first_line
from mixprof.data.histories import is_url
from mixprof.run.batch import Batch
from mixprof.run.merging import merge

INSTALL = "--on slurm: submitit is not installed: pip install 'mixprof[slurm]'; --print writes a script without it"
LINES = {"partition": "partition", "account": "account", "qos": "qos", "constraint": "constraint", "gres": "gres",
         "time": "time", "cpus": "cpus-per-task"}  # fmt: skip
MINUTES = "60"


@dataclass(frozen=True)
class Shard:
    """One shard, as a job runs it; a job that is preempted goes on in the next."""

    command: list[str]
    folder: Path

    def __call__(self) -> int:
        """Run it. The exit code; RuntimeError with the last line it said where it failed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(self.command, stderr=subprocess.PIPE, text=True)
        sys.stderr.write(done.stderr)
        if done.returncode:
            raise RuntimeError(
                f"exit code {done.returncode}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"
            )
        return done.returncode

    def checkpoint(self) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def run(batch: Batch) -> list[str]:
    """Submit a job for each shard, wait, and merge what all of them wrote; what failed or is amiss, a line each.

    Raises UsageError without submitit or Slurm, and where the run to write exists.
    """
    try:
        import submitit
    except ImportError as error:
        raise UsageError(INSTALL) from error
    cluster = batch.place.job.get("cluster", "slurm")
    if cluster == "slurm" and shutil.which("sbatch") is None:
        raise UsageError(
            "--on slurm: got a machine without sbatch, expected a login node of Slurm; --print writes a script"
        )
    out = Path(batch.out)
    if is_url(batch.out):
        raise UsageError(f"got --out '{batch.out}', a URL, expected a folder; --print writes a script that takes it")
    if out.exists():
        raise UsageError(f"got '{batch.out}', which exists, expected a new folder")
    executor = submitit.AutoExecutor(folder=batch.folder("logs"), cluster=cluster)
    executor.update_parameters(**_parameters(batch))
    shards = [Shard(batch.of(index), batch.folder(index)) for index in range(1, batch.place.shards + 1)]
    with executor.batch():
        jobs = [executor.submit(shard) for shard in shards]
    print(f"mixprof: {len(jobs)} jobs, {jobs[0].job_id} to {jobs[-1].job_id}", file=sys.stderr)
    failed = [f"shard {index}/{len(jobs)}: {reason}" for index, job in enumerate(jobs, 1) if (reason := _failure(job))]
    return failed or merge([shard.folder for shard in shards], out)


def _failure(job: Any) -> str | None:
    """Why a job failed, once it has ended."""
    try:
        error = job.exception()
    except Exception as unfinished:  # of submitit or pickle: the job left no result
        error = unfinished
    if error is None:
        return None
    lines = [line for line in str(error).splitlines() if "exit code" in line or "mixprof:" in line]
    return f"{lines[-1].strip() if lines else first_line(error)}; its log is {job.paths.stderr}"


def _parameters(batch: Batch) -> dict[str, Any]:
    """What submitit is told. Its names for Slurm have a prefix, which other clusters leave aside."""
    job = batch.place.job
    given = {
        f"slurm_{name}": job[name] for name in ("partition", "account", "qos", "constraint", "gres") if name in job
    }
    return {
        "name": "mixprof",
        "timeout_min": int(job.get("time", MINUTES)),
        **({"cpus_per_task": int(job["cpus"])} if "cpus" in job else {}),
        **given,
        "slurm_array_parallelism": int(job.get("parallel", batch.place.shards)),
        **({"slurm_exclusive": True} if _exclusive(batch) else {}),
    }


def _exclusive(batch: Batch) -> bool:
    """A node for each job alone, unless a GPU each was asked for or the user says no."""
    job = batch.place.job
    return job.get("exclusive", "no" if "gpu" in job.get("gres", "") else "yes") == "yes"


def script(batch: Batch) -> str:
    """The script for `sbatch`."""
    job = {"time": MINUTES, **batch.place.job}
    count, parallel = batch.place.shards, job.get("parallel", batch.place.shards)
    lines = [
        "job-name=mixprof",
        f"array=1-{count}%{parallel}",
        *(f"{LINES[key]}={job[key]}" for key in LINES if key in job),
    ]
    lines += ["exclusive"] if _exclusive(batch) else []
    head = "".join(f"#SBATCH --{line}\n" for line in lines)
    return f"#!/bin/sh\n{head}# when all have ended: {batch.then}\nset -e\n{batch.in_shell('$SLURM_ARRAY_TASK_ID')}"
