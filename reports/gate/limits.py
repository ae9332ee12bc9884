"""Absolute limits of HEAD's times: `host_p99<=8ms` for every case, `swin_t*:host_p99<=8ms` for some."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from mixprof.data.errors import UsageError
from mixprof.reports.gate.times import METRICS, Time

MILLISECONDS = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}
FORM = re.compile(
    rf"(?:(?P<pattern>.+):)?(?P<metric>{'|'.join(METRICS)})\s*(?:<=|≤)\s*(?P<number>[\d.]+)\s*(?P<unit>\w+)"
)
WITHIN, EXCEEDED, UNKNOWN = "within", "exceeded", "unknown"


@dataclass(frozen=True)
class Limit:
    """The most that a metric may be, in the cases whose label the pattern fits."""

    pattern: str
    metric: str
    most_ms: float

    def fits(self, name: str) -> bool:
        return fnmatchcase(name, self.pattern)


def parse(texts: Iterable[str]) -> tuple[Limit, ...]:
    """["swin_t*:host_p99<=8ms"] -> Limits. A pattern may hold colons; the metric is behind the last."""
    return tuple(map(_parse, texts))


def _parse(text: str) -> Limit:
    match = FORM.fullmatch(text.strip())
    try:
        if match is None:
            raise ValueError
        most_ms = float(match["number"]) * MILLISECONDS[match["unit"]]
        if not 0 < most_ms < float("inf"):
            raise ValueError
    except (ValueError, KeyError):
        raise UsageError(
            f"--limit: got '{text}', expected [PATTERN:]METRIC<=TIME, like 'swin_t*:host_p99<=8ms', with one of "
            f"{', '.join(METRICS)} and of {', '.join(MILLISECONDS)}"
        ) from None
    return Limit(match["pattern"] or "*", match["metric"], most_ms)


def judge(limit: Limit, times: Mapping[str, Time]) -> tuple[str, str]:
    """ "within", "exceeded" or "unknown", and the words for it.

    Exceeded and within need the whole interval: a time near its limit is on either side of it by chance.
    """
    time = times.get(limit.metric, Time(None, reason="it was not measured"))
    of = f"the limit of {limit.most_ms:g} ms"
    if time.ms is None:
        return UNKNOWN, f"{limit.metric} is not known, and so not whether it keeps {of}: {time.reason}"
    if time.low_ms is None and time.high_ms is None:
        return UNKNOWN, f"{limit.metric} is {time.ms:.4g} ms in too few rounds or samples to judge {of}"
    low, high = ("?" if end is None else f"{end:.4g}" for end in (time.low_ms, time.high_ms))
    measured = f"{limit.metric} is {time.ms:.4g} ms [{low}, {high}]"
    if time.low_ms is not None and time.low_ms > limit.most_ms:
        return EXCEEDED, f"{measured}, over {of}"
    if time.high_ms is None or time.high_ms > limit.most_ms:
        return UNKNOWN, f"{measured}, too near to judge {of}"
    return WITHIN, f"{measured}, within {of}"
