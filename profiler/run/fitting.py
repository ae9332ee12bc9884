"""The largest batch of each case that fits a memory, by the predicted peak: nothing is run."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

from mixprof.data.case import Case
from mixprof.plan.axes import Planned
from mixprof.run.outlook import Count

FIRST, MOST = 2, 1 << 20  # images: where a search begins, and where it ends
GIBIBYTE = 1 << 30


@dataclass(frozen=True)
class Fit:
    """A case at the largest batch that fits; the reason why none does, or why a larger one may."""

    case: Case
    batch: int | None
    predicted_memory_bytes: int | None = None
    reason: str | None = None

    def to_json(self) -> dict[str, object]:
        return {**asdict(self), "case": self.case.to_json()}


def largest(peak: Callable[[int], int | None], limit: int) -> int:
    """The largest batch up to MOST whose peak is at most the limit; 0 for none. peak: None where a batch cannot be.

    A peak grows with the batch, nearly in proportion: the next guess lies on the line through the last two.
    """
    fits, too_large = 0, MOST + 1
    known: list[tuple[int, int]] = []
    guess = FIRST
    while too_large - fits > 1:
        size = peak(guess)
        if size is None or size > limit:
            too_large = guess
        else:
            fits = guess
        known += [] if size is None else [(guess, size)]
        guess = min(max(_on_the_line(known, limit) or 2 * guess, fits + 1), too_large - 1)
    return fits


def _on_the_line(known: Sequence[tuple[int, int]], limit: int) -> int | None:
    """The batch at which the line through the last two peaks meets the limit."""
    if len(known) < 2:
        return None
    (before, lower), (batch, size) = sorted(known[-2:])
    return batch + (limit - size) * (batch - before) // (size - lower) if size > lower else None


def fit(planned: Sequence[Planned], limit: int, count: Count) -> list[Fit]:
    """The largest batch of every case, whatever batch it was planned with."""
    cases = {replace(entry.case, batch=1): entry for entry in planned if not entry.case.is_anchor}
    return [_fit(case, entry, limit, count) for case, entry in cases.items()]


def _fit(case: Case, entry: Planned, limit: int, count: Count) -> Fit:
    if entry.reason is not None:
        return Fit(case, None, reason=entry.reason)
    peaks: dict[int, int | None] = {}
    reasons: list[str | None] = []

    def peak(batch: int) -> int | None:
        counted = count(replace(case, batch=batch), entry.source)
        reasons.append(counted.reason or counted.memory_reason)
        peaks[batch] = counted.peak_bytes
        return peaks[batch]

    batch = largest(peak, limit)
    if batch:
        more = f"no more than {MOST:,} are looked for" if batch == MOST else None
        return Fit(replace(case, batch=batch), batch, peaks[batch], more)
    least = min((size for size in peaks.values() if size is not None), default=None)
    words = None if least is None else f"needs {least:,} bytes at the least"
    return Fit(case, None, reason=words or reasons[0] or "its memory cannot be predicted")


def as_text(fits: Sequence[Fit], limit: int) -> str:
    """The batches for a person."""
    lines = [f"largest batches for {limit / GIBIBYTE:g} GiB, by predicted memory beside the process and its context"]
    for one in fits:
        if one.batch is None or one.predicted_memory_bytes is None:
            lines.append(f"{one.case.label():72} none: {one.reason}")
        else:
            size = f"{one.predicted_memory_bytes / GIBIBYTE:>9.3f} GiB"
            lines.append(f"{one.case.label():72} {one.batch:>8} {size}{'  ' + one.reason if one.reason else ''}")
    return "\n".join(lines)
