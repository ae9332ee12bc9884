"""Outcomes with known numbers, for exporters and policies."""

from __future__ import annotations

from typing import Any

from mixprof.reports.gate.outcome import Judged, Outcome
from mixprof.reports.gate.times import Time

# What a name can hold: another format's marks, line ends, a terminal's colours, right-to-left and astral letters.
NASTY = (
    "a|b <script>alert(\"1\")</script>\r\n::error::x, 100% `c` [l](http://e) &lt; *d* \\ 'é' עב 🙂 \x1b[31mred _e_ $f$"
)
TIMES = {
    "latency": Time(2.0, 1.9, 2.1),
    "host_p50": Time(2.0, 1.8, 2.25),
    "host_p95": Time(3.0, None, None),
    "host_p99": Time(None, reason="it needs 1,000 samples, there were 300"),
}


def judged(name: str, verdict: str = "same", **fields: Any) -> Judged:
    """A verdict over five rounds; changes are relative."""
    changes = {"regressed": 0.05, "improved": -0.05, "same": 0.001, "inconclusive": 0.025}
    if verdict in changes and "change" not in fields:
        change = changes[verdict]
        fields = {"change": change, "low": change - 0.01, "high": change + 0.01, "rounds": 5, **fields}
    return Judged(name, verdict, **fields)


def every_verdict() -> Outcome:
    """One case a verdict, a family, the grid, a canary, and names that no format likes."""
    cases = [
        judged("regressed case", "regressed", times=TIMES, exact={"macs": (100, 200)}),
        judged("lost", "missing", reason="head: crashed: signal 11"),
        judged("open", "inconclusive", more_rounds=7, more_s=42.0),
        judged("elsewhere", "incomparable", reason="base: oom"),
        judged("accepted", "regressed", waived="see issue 12"),
        judged("faster", "improved"),
        judged(NASTY, "regressed", reason=NASTY),
    ]
    family, grid = judged("swin_t eager", "inconclusive"), judged("all cases", "regressed")
    return Outcome(
        "ab",
        f"main {NASTY}",
        "topic|x",
        cases,
        [family],
        grid,
        judged("canary"),
        12.5,
        0.04,
        [NASTY, "# not a heading"],
    )
