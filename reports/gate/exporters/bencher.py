"""Bencher Metric Format: https://bencher.dev/docs/reference/bencher-metric-format/"""

import json
import math

from mixprof.reports.gate.outcome import Judged, Outcome, Policy

NAME_LENGTH = 1024  # characters, at most
NANOSECONDS = 1e6  # in a millisecond; the unit of its measure `latency`


def as_bencher(outcome: Outcome, policy: Policy) -> str:
    """For each case what is known of HEAD: latency, its change, and the counts in which the sides differ."""
    by_case = {judged.name[:NAME_LENGTH]: _measures(judged) for judged in outcome.cases}
    return (
        json.dumps({name: measures for name, measures in by_case.items() if measures}, indent=1, allow_nan=False) + "\n"
    )


def _measures(judged: Judged) -> dict[str, dict[str, float]]:
    measures = {name.replace("_", "-"): _metric(head) for name, (_, head) in judged.exact.items()}
    if judged.change is not None:
        measures["relative-change"] = _metric(judged.change, judged.low, judged.high)
    for name, time in judged.times.items():
        if time.ms is not None:
            values = [None if ms is None else ms * NANOSECONDS for ms in (time.ms, time.low_ms, time.high_ms)]
            measures[name.replace("_", "-")] = _metric(*values)
    return {name: metric for name, metric in measures.items() if metric}


def _metric(value: float | None, low: float | None = None, high: float | None = None) -> dict[str, float]:
    """Nothing at all without a value: a number that is not finite is no JSON."""
    parts = {"value": value, "lower_value": low, "upper_value": high}
    known = {name: value for name, value in parts.items() if value is not None and math.isfinite(value)}
    return known if "value" in known else {}
