"""What the results come to: a JSON file for programs, a page for people."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from acceptance.frame import OUTCOMES, SCHEMA, Check, Result
from acceptance.run import Device


def write(folder: Path, device: Device, results: Sequence[Result], left: Iterable[Check]) -> dict[str, int]:
    """Write both; how many results there are of each outcome, and how many checks are left."""
    left = list(left)
    counts = Counter(result.outcome for result in results)
    summary = {**{outcome: counts[outcome] for outcome in OUTCOMES}, "left": len(left)}
    content = {
        "schema": SCHEMA,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "device": device.kind == "gpu",
        "simulated": device.kind == "sim",
        "label": device.label,
        "name": device.name,
        "reason": device.reason,
        "summary": summary,
        "checks": [
            {"name": each.name, "outcome": each.outcome, "message": each.message, "seconds": each.seconds}
            for each in results
        ],
        "left": [check.name for check in left],
    }
    _whole(folder / "gpu_acceptance.json", json.dumps(content, indent=1) + "\n")
    _whole(folder / "summary.md", "\n".join(_page(device, results, left, summary)) + "\n")
    return summary


def _whole(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    part.replace(path)


def _page(device: Device, results: Sequence[Result], left: Sequence[Check], summary: dict[str, int]) -> Iterable[str]:
    simulated = " (simulated: nothing here was measured)" if device.kind == "sim" else ""
    yield f"# Acceptance on {device.name or device.label}{simulated}\n"
    yield ", ".join(f"{count} {outcome}" for outcome, count in summary.items()) + "\n"
    yield "| check | outcome | seconds | message |\n|---|---|---|---|"
    for result in results:
        yield f"| {result.name} | {result.outcome} | {result.seconds:.1f} | {_cell(result.message or '')} |"
    for check in left:
        yield f"| {check.name} | left | | too little time: --resume |"
    yield "\n## Predicted and seen\n\n| check | what | predicted | seen | |\n|---|---|---|---|---|"
    for result in results:
        for each in result.predicted:
            verdict = "as predicted" if each["holds"] else "**otherwise**"
            figures = f"{_cell(_range(each['expected']))} | {_cell(_short(each['seen']))}"
            yield f"| {result.name} | {each['what']} | {figures} | {verdict} |"


def _range(expected: object) -> str:
    if isinstance(expected, dict):
        return f"{_short(expected['from'])} to {_short(expected['to'])}"
    return " or ".join(map(_short, expected)) if isinstance(expected, list) else _short(expected)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")[:300]
