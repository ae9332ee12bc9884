"""One side's process of a pair: a lowered case that stays in memory and takes samples when it has the token."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from mixprof import sampling
from mixprof.data.launch import Launch
from mixprof.machine import cpu_contention, streams
from mixprof.machine.streams import Stream
from mixprof.metrics import Subject, latency
from mixprof.worker import extra_work, launch

WARM_UP = sampling.Budget(min_work_s=0.2, window_s=0.05, drift=0.05, steady_cap_s=2.0)


def resident(request: dict[str, Any]) -> dict[str, Any]:
    """Lower a case, check its output, warm up, then answer {"take": n} with n samples until {"end": true}.

    Messages are JSON lines on two named pipes, request["asks"] and request["answers"]. The fields of a Launch.
    """
    ready = launch.lower(request)
    subject = ready.subject
    if subject.lowered.forward is None:
        return Launch("built", f"{subject.case.device} is not there: nothing to time").to_json()
    with ready.running():
        checked = launch.check(subject)
        if checked.status == "ok":
            _serve(subject, request)
    return checked.to_json()


def _serve(subject: Subject, request: dict[str, Any]) -> None:
    """Take samples on request until the other side is done."""
    forward, device = subject.forward, subject.case.device
    stream = latency.stream_of(subject.lowered, device)
    if share := request.get("extra_work"):  # a slow-down that is known: `mixprof calibrate`
        forward = extra_work.slowed(forward, share, device, stream)
    flusher = streams.cpu_flusher if stream is None else stream.flusher
    flush = flusher() if subject.case.mode == "cold" else None
    repeats = 1 if flush else streams.forwards_per_sample(forward, stream)
    settle(_sampler(forward, repeats, stream, flush))
    with open(request["asks"]) as asks, open(request["answers"], "w", buffering=1) as answers:
        answers.write(json.dumps({"ready": True, "forwards_per_sample": repeats}) + "\n")
        for line in asks:
            message = json.loads(line)
            if "take" not in message:
                return
            # A sampler of each turn's own: what a GPU's has queued ahead would be of the turn before.
            take = _sampler(forward, repeats, stream, flush)
            before = cpu_contention.read()
            samples = [take() for _ in range(message["take"])]
            lost = cpu_contention.lost_share(before, cpu_contention.read())
            answers.write(json.dumps({"ms": samples, "lost": lost}) + "\n")


def _sampler(
    forward: Callable[[], object], repeats: int, stream: Stream | None, flush: Callable[[], object] | None
) -> Callable[[], float]:
    if stream is None:
        return streams.host_sampler(forward, repeats, None, flush)
    return streams.gpu_sampler(forward, repeats, stream, flush)


def settle(take: Callable[[], float]) -> None:
    """Run until the time no longer drifts, or for some seconds: the pair is interleaved, what drifts drifts in both."""
    start, samples = time.perf_counter(), list[float]()
    while not sampling.is_steady(samples, time.perf_counter() - start, WARM_UP):
        if time.perf_counter() - start > WARM_UP.steady_cap_s:
            return
        samples.append(take())
