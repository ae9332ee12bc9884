"""One side's process of a pair: a lowered case that stays in memory and takes samples when it has the token."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mixprof import sampling
from mixprof.data.launch import Launch
from mixprof.machine import cpu_contention, flags, streams, thermal
from mixprof.machine.devices import Call, Device
from mixprof.metrics import Subject, latency
from mixprof.worker import extra_work, launch, pin

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
        if checked.status == "ok" and (changed := _serve(subject, request)):
            return replace(checked, status="unsupported", reason=changed).to_json()
    return checked.to_json()


def _serve(subject: Subject, request: dict[str, Any]) -> str | None:
    """Take samples on request until the other side is done; without any, why they would not be of the case."""
    flags.apply(values := pin.flags_of(subject.case, request["measure"]["threads"]))
    forward, device = subject.lowered.forward, subject.device
    assert forward is not None
    if share := request.get("extra_work"):  # a slow-down that is known: `mixprof calibrate`
        forward = extra_work.slowed(forward, share, device, subject.lowered.before)
    flush = latency.ahead(subject.lowered.before, device.flusher() if subject.case.mode == "cold" else None)
    if headroom := request["measure"].get("thermal_headroom"):
        thermal.cool(device, headroom)
    sampler, queue = _sampler(forward, device, flush, subject.lowered.before)
    enqueue = streams.enqueue_sampler(forward, device, queue.forwards, subject.lowered.before)
    settle(sampler(), device)
    if changed := pin.changed_flags(values):
        return changed
    with open(request["asks"]) as asks, open(request["answers"], "w", buffering=1) as answers:
        answers.write(json.dumps({"ready": True, **_as_told(queue)}) + "\n")
        for line in asks:
            message = json.loads(line)
            if "take" not in message:
                break
            take = sampler()
            before = cpu_contention.read()
            samples = [take() for _ in range(message["take"])]
            host = [enqueue() for _ in range(message["take"] * bool(device.queue))]
            lost = cpu_contention.lost_share(before, cpu_contention.read())
            answers.write(json.dumps({"ms": samples, "enqueue_ms": host, "lost": lost}) + "\n")
    return None


def _as_told(queue: streams.Queue) -> dict[str, object]:
    return {"forwards_per_sample": queue.forwards, "gated": queue.gated}


def _sampler(
    forward: Call, device: Device, flush: Call | None, needs: Call | None
) -> tuple[Callable[[], Callable[[], float]], streams.Queue]:
    """What makes a sampler for each turn, since what a GPU's has queued ahead would be of the turn before."""
    if device.queue:
        queue = streams.queue_of(forward, device, flush, needs)
        return (lambda: streams.gpu_sampler(forward, queue, device, flush)), queue
    repeats = 1 if flush else streams.forwards_per_sample(forward, device)
    return (lambda: streams.host_sampler(forward, repeats, device, flush)), streams.Queue(repeats, 1)


def settle(take: Callable[[], float], device: Device) -> None:
    """Run until the time no longer drifts, or for some seconds: the pair is interleaved, what drifts drifts in both."""
    start, samples = device.clock(), list[float]()
    while not sampling.is_steady(samples, device.clock() - start, WARM_UP):
        if device.clock() - start > WARM_UP.steady_cap_s:
            return
        samples.append(take())
