"""How far a sweep has come: counts of outcomes, the slowest case, the time that is left."""

import time
from collections import Counter

from mixprof.data.case import Case
from mixprof.data.launch import Launch


class Tally:
    """Counts of outcomes, the slowest case, and the time that is left."""

    def __init__(self, launches: int):
        self.launches, self.start = launches, time.monotonic()
        self.outcomes: Counter[str] = Counter()
        self.slowest: tuple[float, str] | None = None  # median ms, case
        self._noted: set[str] = set()

    @property
    def done(self) -> int:
        return self.outcomes.total()

    def add(self, case: Case, launch: Launch) -> str:
        """Count an ended launch; what it came to, in words."""
        self.outcomes[launch.status] += 1
        words = launch.status if launch.reason is None else f"{launch.status}: {launch.reason}"
        words += f"  on {launch.environment.origin}" if launch.environment.origin else ""
        median_ms = _median_ms(launch)
        if median_ms is None:
            return f"{case.label()}  {words}"
        self.slowest = max(self.slowest or (0.0, ""), (median_ms, case.label()))
        return f"{case.label()}  {words}  {median_ms:.3g} ms"

    def note(self, case: Case, launch: Launch) -> str | None:
        """What to say once of a model: another layout than the default, or outputs that nothing can be told from."""
        proof = launch.proof or {}
        reference, notes = str(proof.get("reference") or ""), []
        if "layout_reason" in proof:
            notes.append(f"{case.model} runs in {proof['layout']}, not in {case.layout}: {proof['layout_reason']}")
        if reference.startswith("random"):
            notes.append(f"{case.model} is {reference}")
        new = [note for note in notes if note not in self._noted]
        self._noted.update(new)
        return "; ".join(new) or None

    def clock(self) -> str:
        """ "elapsed 2:34, 1:02 left"."""
        elapsed = time.monotonic() - self.start
        left = _minutes(elapsed / self.done * max(0, self.launches - self.done)) if self.done else "?"
        return f"elapsed {_minutes(elapsed)}, {left} left"


def _median_ms(launch: Launch) -> float | None:
    times = launch.gpu_ms or launch.host_ms
    if times is None or launch.status != "ok":
        return None
    return sorted(times.samples)[len(times.samples) // 2]


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
