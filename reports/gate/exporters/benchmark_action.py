"""What github-action-benchmark reads with `tool: customSmallerIsBetter`: a list of name, unit, value, range, extra.

https://github.com/benchmark-action/github-action-benchmark#readme
"""

import json
from typing import Any

from mixprof.reports.gate.outcome import Judged, Outcome, Policy
from mixprof.reports.gate.tables import change_of, interval_of
from mixprof.reports.gate.times import Time


def as_benchmark_action(outcome: Outcome, policy: Policy) -> str:
    """HEAD's times and the counts in which the sides differ. The action refuses an empty list."""
    entries = [entry for judged in outcome.cases for entry in _entries(judged)]
    return json.dumps(entries, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _entries(judged: Judged) -> list[dict[str, Any]]:
    extra = " ".join(part for part in (judged.verdict, change_of(judged), interval_of(judged)) if part)
    counts = [
        {"name": f"{judged.name} {name}", "unit": name.rpartition("_")[2], "value": head, "extra": extra}
        for name, (_, head) in judged.exact.items()
    ]
    times = [_time(judged.name, name, time, extra) for name, time in judged.times.items() if time.ms is not None]
    return [*times, *counts]


def _time(case: str, name: str, time: Time, extra: str) -> dict[str, Any]:
    entry = {"name": case if name == "latency" else f"{case} {name}", "unit": "ms", "value": time.ms, "extra": extra}
    if time.low_ms is None or time.high_ms is None:
        return entry
    return {**entry, "range": f"± {(time.high_ms - time.low_ms) / 2:.4g}"}
