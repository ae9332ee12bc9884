"""What was predicted before any GPU had run this, as data in predictions.json, and whether a result bears it out.

An entry: `check` and `value` name what it speaks of ("outcome" is a check's own), `expected` is a value, a list of
values or {"from", "to"}; `on` lists what a device's name may contain (any GPU without it; "sim" is the simulated one);
`why` says where the figure comes from. The first entry that fits a device counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from acceptance.frame import Result, Value

FILE = Path(__file__).with_name("predictions.json")


def load() -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads(FILE.read_text())["predictions"]
    return entries


def compared(result: Result, name: str) -> Result:
    """A result beside what was predicted of it. name: the device's, like "NVIDIA H100 80GB HBM3" or "sim:0"."""
    return replace(result, predicted=tuple(_comparisons(result, name)))


def _comparisons(result: Result, name: str) -> Iterator[Mapping[str, object]]:
    values: dict[str, Value] = {**result.seen.values, "outcome": result.outcome}
    done: set[str] = set()
    for entry in load():
        what = entry["value"]
        if entry["check"] != result.name or what in done or what not in values or not _fits(entry, name):
            continue
        done.add(what)
        seen = values[what]
        yield {"what": what, "expected": entry["expected"], "seen": seen, "holds": holds(seen, entry["expected"])}


def _fits(entry: Mapping[str, Any], name: str) -> bool:
    simulated = name.startswith("sim")
    if "on" not in entry:
        return not simulated
    return any(part in name for part in entry["on"])


def holds(seen: Value, expected: Any) -> bool:
    """Whether a value is what was expected: equal, one of a list, or within a range."""
    if isinstance(expected, dict):
        return isinstance(seen, int | float) and expected["from"] <= seen <= expected["to"]
    return seen in expected if isinstance(expected, list) else seen == expected
