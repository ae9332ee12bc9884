"""Whether two ways of timing one engine agree: the order of their turns, the verdict, the table. Pure functions."""

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mixprof.data.manifest import Checked, CrossCheck
from mixprof.data.record import Record

AGREED, DISAGREED, UNCHECKED = "agreed", "disagreed", "not checked"
TOLERANCE = 0.02
LEAST_BLOCKS = 5
OURS, THEIRS = SIDES = "ours", "trtexec"
Block = Sequence[tuple[str, float]]  # side and milliseconds, in the order they were taken


def schedule(blocks: int, seed: int) -> list[tuple[str, ...]]:
    """Blocks of A B B A, each with a side drawn to start: a drift of the machine meets both sides alike."""
    draw = random.Random(seed)
    order = (OURS, THEIRS, THEIRS, OURS)
    return [order if draw.random() < 0.5 else (THEIRS, OURS, OURS, THEIRS) for _ in range(blocks)]


def log_ratio(block: Block) -> float:
    """The logarithm of our time over theirs in one block, each side as the mean of its logarithms."""
    means = {side: statistics.fmean(math.log(ms) for of, ms in block if of == side) for side in SIDES}
    return means[OURS] - means[THEIRS]


def verdict(blocks: Sequence[Block]) -> tuple[str, float]:
    """Agreed or disagreed, and our time over theirs: the median over the blocks of their log ratios."""
    median = statistics.median(log_ratio(block) for block in blocks)
    return (AGREED if abs(median) <= math.log1p(TOLERANCE) else DISAGREED), math.exp(median)


def unchecked(record: Record, reason: str) -> Checked:
    """The entry of a record that was not checked."""
    return replace(_entry(record), reason=reason)


def checked(record: Record, blocks: Sequence[Block], command: str) -> Checked:
    """The entry of a record whose engine both sides timed."""
    mark, ratio = verdict(blocks)
    ours, theirs = (statistics.median(ms for block in blocks for of, ms in block if of == side) for side in SIDES)
    more: dict[str, Any] = {"mark": mark, "ratio": ratio, "ours_ms": ours, "trtexec_ms": theirs, "command": command}
    return replace(_entry(record), times_ms=tuple(map(tuple, blocks)), **more)


def _entry(record: Record) -> Checked:
    proof = record.proof or {}
    medians = [statistics.median(launch.gpu_ms.samples) for launch in record.launches if launch.gpu_ms is not None]
    return Checked(
        case=record.case,
        mark=UNCHECKED,
        flavour=record.case.lowering.split(":")[0],
        tensorrt_version=proof.get("tensorrt_version"),
        engine_sha256=proof.get("engine_sha256"),
        recorded_ms=statistics.geometric_mean(medians) if medians and record.status == "ok" else None,
        command=proof.get("trtexec"),
    )


def exit_code(checks: CrossCheck) -> int:
    """0 when something was checked and all of it agrees, else 4."""
    marks = {entry.mark for entry in checks.cases}
    return 0 if AGREED in marks and DISAGREED not in marks else 4


def rows(checks: CrossCheck) -> list[dict[str, str]]:
    """A line a case, for a table. The flavours are never one: each has its name in front."""
    return [
        {
            "flavour": f"{entry.flavour} {entry.tensorrt_version or ''}".strip(),
            "case": entry.case.label(),
            "in the run (ms)": _number(entry.recorded_ms),
            "ours (ms)": _number(entry.ours_ms),
            "trtexec (ms)": _number(entry.trtexec_ms),
            "ours / trtexec": _number(entry.ratio),
            "mark": in_words(entry),
        }
        for entry in checks.cases
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def in_words(entry: Checked) -> str:
    """ "agreed", "not checked: status is built: …"."""
    return entry.mark + (f": {entry.reason}" if entry.reason else "")


def summary(checks: CrossCheck) -> str:
    """ "3 agreed within 2%, 1 disagreed, 2 not checked"."""
    marks = [entry.mark for entry in checks.cases]
    counts = {name: marks.count(name) for name in (AGREED, DISAGREED, UNCHECKED)}
    return ", ".join(
        f"{count} {name}" + f" within {TOLERANCE:.0%}" * (name == AGREED) for name, count in counts.items()
    )
