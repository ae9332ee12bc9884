"""Checks one after another, the most telling first, until all are done or the deadline is near."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from acceptance import predictions
from acceptance.frame import Check, Journal, Result, patience
from acceptance.probes import Server

MARGIN_S = 4.0  # before the deadline, to write the summary
SIMULATED = "only a real GPU can show it, and '{device}' is simulated"


@dataclass(frozen=True)
class Device:
    """What the checks run on. kind: "gpu", "sim" or "none", with the reason why there is none."""

    label: str  # "cuda:0", "sim:0", "none"
    kind: str
    name: str  # "NVIDIA H100 80GB HBM3"
    reason: str | None = None

    def lacks(self, check: Check) -> str | None:
        """Why a check can't be made on it; None when it can."""
        if check.needs == "nothing" or self.kind == "gpu":
            return None
        if self.kind == "none":
            return self.reason
        return SIMULATED.format(device=self.label) if check.needs == "gpu" else None


def run(checks: Iterable[Check], journal: Journal, server: Server, device: Device, end: float) -> list[Check]:
    """Keep a result of each check that has none yet; those that time was too short for. end: by `time.monotonic`."""
    left = []
    for check in checks:
        if check.name in journal.results:
            continue
        result = _result(check, server, device, end - MARGIN_S - time.monotonic())
        if result is None:
            left.append(check)
            continue
        result = predictions.compared(result, device.name)
        journal.keep(result)
        print(line(result), flush=True)
    return left


def _result(check: Check, server: Server, device: Device, left_s: float) -> Result | None:
    """None when the deadline is too near, or was reached before the check's own time was over."""
    if reason := device.lacks(check):
        return Result(check.name, "skipped", reason, 0.0, device.label, time.strftime("%Y-%m-%dT%H:%M:%S%z"))
    if left_s < check.usual_s:
        return None
    limit_s = check.limit_s * patience(device.label)
    result = server.run(check, device.label, min(limit_s, left_s))
    if result.outcome != "timeout":
        return result
    if left_s < limit_s:
        return None
    return Result(check.name, "failed", result.message, result.seconds, device.label, result.at)


def line(result: Result) -> str:
    """A result as it is printed, with the predictions that it goes against."""
    against = [
        f"{each['what']} {each['seen']}, not {each['expected']}" for each in result.predicted if not each["holds"]
    ]
    parts = [f"{result.outcome:8}{result.name:28}{result.seconds:6.1f} s", result.message or ""]
    return "  ".join([*parts, *(["against prediction: " + "; ".join(against)] if against else [])]).rstrip()
