"""Shards as an indexed Job of Kubernetes: the completion index is the shard. It writes a manifest and sends nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mixprof.data.errors import UsageError
from mixprof.data.histories import is_url
from mixprof.run.batch import Batch

RETRIES = 3  # of one shard, each of which goes on where the last one was


def manifest(batch: Batch) -> str:
    """The Job as JSON, for `kubectl apply -f -`. UsageError without an image, and for a folder that no volume holds."""
    job = batch.place.job
    for name in ("image",) if is_url(batch.out) else ("image", "claim"):
        if name not in job:
            raise UsageError(f"--on kubernetes: got no {name}, expected --job {name}=… among the job's settings")
    if not is_url(batch.out) and not batch.out.startswith("/"):
        raise UsageError(f"--out: got '{batch.out}', expected a URL, or a path below / on the volume '{job['claim']}'")
    spec = {
        "completionMode": "Indexed",
        "completions": batch.place.shards,
        "parallelism": int(job.get("parallel", batch.place.shards)),
        "backoffLimitPerIndex": RETRIES,
        "template": {"metadata": {"labels": {"app": "mixprof"}}, "spec": _pod(batch)},
    }
    metadata = {"name": "mixprof", "annotations": {"mixprof/then": batch.then}}
    return json.dumps({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}, indent=1) + "\n"


def _pod(batch: Batch) -> dict[str, Any]:
    job = batch.place.job
    sizes = {"cpu": job.get("cpus"), "memory": job.get("memory"), "nvidia.com/gpu": job.get("gpus")}
    limits = {name: value for name, value in sizes.items() if value is not None}
    container: dict[str, Any] = {
        "name": "mixprof",
        "image": job["image"],
        "command": ["sh", "-ec", batch.in_shell("`expr $JOB_COMPLETION_INDEX + 1`")],
        "resources": {"limits": limits, "requests": limits},
    }
    volumes = {}
    if not is_url(batch.out):
        container["volumeMounts"] = [{"name": "runs", "mountPath": str(Path(batch.out).parent)}]
        volumes = {"volumes": [{"name": "runs", "persistentVolumeClaim": {"claimName": job["claim"]}}]}
    key, _, value = job.get("node", "").partition("=")
    return {
        "restartPolicy": "Never",
        **({"nodeSelector": {key: value}} if key else {}),
        **({} if "gpus" in job else {"affinity": _ALONE}),
        "containers": [container],
        **volumes,
    }


# Two timings on a CPU never share a node.
_ALONE = {
    "podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": {"matchLabels": {"app": "mixprof"}}, "topologyKey": "kubernetes.io/hostname"}
        ]
    }
}
