"""Where a sweep runs: this machine, or engines that schedule it on others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from mixprof.data.errors import UsageError
from mixprof.data.parsing import nearest

# What each engine's jobs can be told. The first two run shards; Ray has labels of nodes in the place of jobs.
JOBS: dict[str, dict[str, str]] = {
    "slurm": {
        "partition": "gpu", "account": "mine", "qos": "normal", "constraint": "h100", "gres": "gpu:1", "time": "60",
        "cpus": "8", "parallel": "8", "exclusive": "yes", "cluster": "slurm",
    },
    "kubernetes": {
        "image": "registry/mixprof:1", "claim": "runs", "gpus": "1", "cpus": "8", "memory": "32Gi", "parallel": "8",
        "node": "accelerator=h100",
    },
}  # fmt: skip
ENGINES = ("local", "ray", *JOBS)
WHOLE = ("time", "cpus", "parallel", "gpus")


@dataclass(frozen=True)
class Place:
    """An engine with what it is told."""

    engine: str = "local"
    address: str | None = None  # of a Ray cluster, host:port; None: that of this machine
    accelerators: tuple[str, ...] = ()  # labels of a Ray cluster's nodes
    shards: int = 1
    job: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))  # keys of JOBS

    @property
    def is_batch(self) -> bool:
        return self.engine in JOBS

    @classmethod
    def parse(
        cls, on: str | None, accelerators: str | None = None, shards: str | None = None, job: str | None = None
    ) -> Place:
        """ "ray://10.0.0.1:6379", "H100,L4" -> a place. UsageError for an unknown engine and what it does not take."""
        engine, _, address = (on or "local").partition("://")
        if engine not in ENGINES:
            raise UsageError(f"--on: got '{on}', expected {nearest(engine, ENGINES)}; a cluster's is ray://host:port")
        if address and engine != "ray":
            raise UsageError(f"--on: got '{on}', expected no address with {engine}")
        if accelerators and engine != "ray":
            raise UsageError(f"got --accelerators {accelerators}, expected --on ray with it")
        for option, value in (("--shards", shards), ("--job", job)):
            if value is not None and engine not in JOBS:
                raise UsageError(f"got {option} {value}, expected --on {' or --on '.join(JOBS)} with it")
        if engine in JOBS and not re.fullmatch(r"[1-9]\d{0,3}", shards or ""):
            raise UsageError(f"--shards: got {shards or 'none'}, expected with --on {engine} how many, from 1 to 9999")
        return cls(engine, address or None, _labels(accelerators), int(shards or 1), _job(engine, job))

    def refuse_beside(self, shard: object, refine: object) -> None:
        """UsageError for a shard, or cases that are added, where they do not go with this place or one another."""
        elsewhere = self.engine != "local"
        if refine and (shard or elsewhere):
            raise UsageError("got --refine with --shard or --on, expected it alone: what to add depends on every case")
        if shard and elsewhere:
            raise UsageError("got --shard with --on, expected one of them: an engine splits a sweep by itself")


def _labels(text: str | None) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",")) if text else ()
    if not all(names) or len(set(names)) < len(names):
        raise UsageError(f"--accelerators: got '{text}', expected labels like H100,L4, each once")
    return names


def _job(engine: str, text: str | None) -> Mapping[str, str]:
    """ "partition=gpu,gres=gpu:1" as what it says. UsageError for a key that the engine's jobs have not."""
    values: dict[str, str] = {}
    for part in text.split(",") if text else ():
        key, equals, value = (text.strip() for text in part.partition("="))
        known = JOBS[engine]
        if key not in known or not equals or not value or (key in WHOLE and not re.fullmatch(r"[1-9]\d*", value)):
            examples = ", ".join(f"{name}={example}" for name, example in known.items())
            raise UsageError(f"--job: got '{part}', expected some of {examples}")
        values[key] = value
    return MappingProxyType(values)
