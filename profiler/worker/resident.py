"""One side's process of a pair: a lowered case that stays in memory and takes samples when it has the token."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mixprof import sampling
from mixprof.data.types import Launch
from mixprof.machine import cpu_contention, device
from mixprof.machine.device import Stream
from mixprof.metrics import accuracy, latency
from mixprof.worker import extra_work
from mixprof.worker.jobs import Ready

WARM_UP = sampling.Budget(min_work_s=0.2, window_s=0.05, drift=0.05, steady_cap_s=2.0)


def serve(ready: Ready, request: dict[str, Any]) -> dict[str, Any]:
    """Check the output, warm up, then answer {"take": n} with n samples until {"end": true}. The fields of a Launch.

    Messages are JSON lines on two named pipes, request["asks"] and request["answers"].
    """
    lowered, case = ready.lowered, ready.case
    found = Launch("ok", build_s=lowered.build_s, build_cached=lowered.build_cached, proof=dict(lowered.proof))
    if lowered.forward is None:
        return replace(found, status="built", reason=f"{case.device} is not there: nothing to time").to_json()
    with ready.inference():
        error = accuracy.relative_error(lowered.read(), ready.expected)
        if not error <= accuracy.TOLERANCES[case.dtype]:
            reason = f"relative error {error:.2g}, expected at most {accuracy.TOLERANCES[case.dtype]:g} in {case.dtype}"
            return replace(found, status="inaccurate", reason=reason).to_json()
        stream = latency.stream_of(lowered, case.device)
        forward = lowered.forward
        if share := request.get("extra_work"):  # a slow-down that is known: `mixprof calibrate`
            forward = extra_work.slowed(forward, share, case.device, stream)
        flusher = device.cpu_flusher if stream is None else stream.flusher
        flush = flusher() if case.mode == "cold" else None
        repeats = 1 if flush else device.forwards_per_sample(forward, stream)
        settle(_sampler(forward, repeats, stream, flush))
        with open(request["asks"]) as asks, open(request["answers"], "w", buffering=1) as answers:
            answers.write(json.dumps({"ready": True, "forwards_per_sample": repeats}) + "\n")
            for line in asks:
                asked = json.loads(line)
                if "take" not in asked:
                    break
                # A sampler of each turn's own: what a GPU's has queued ahead would be of the turn before.
                take = _sampler(forward, repeats, stream, flush)
                before = cpu_contention.read()
                samples = [take() for _ in range(asked["take"])]
                lost = cpu_contention.lost_share(before, cpu_contention.read())
                answers.write(json.dumps({"ms": samples, "lost": lost}) + "\n")
    return replace(found, relative_error=error).to_json()


def _sampler(
    forward: Callable[[], object], repeats: int, stream: Stream | None, flush: Callable[[], object] | None
) -> Callable[[], float]:
    if stream is None:
        return device.host_sampler(forward, repeats, None, flush)
    return device.gpu_sampler(forward, repeats, stream, flush)


def settle(take: Callable[[], float]) -> None:
    """Run until the time no longer drifts, or for some seconds: the pair is interleaved, what drifts drifts in both."""
    start, samples = time.perf_counter(), list[float]()
    while not sampling.is_steady(samples, time.perf_counter() - start, WARM_UP):
        if time.perf_counter() - start > WARM_UP.steady_cap_s:
            return
        samples.append(take())
