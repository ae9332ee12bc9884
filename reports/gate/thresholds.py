"""How much slower is too much: a share for all cases, and others for the cases that a pattern names."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from mixprof.data.errors import UsageError
from mixprof.reports.gate.verdicts import FAMILY_THRESHOLD, THRESHOLD


@dataclass(frozen=True)
class Thresholds:
    """Relative changes above which a case has regressed."""

    of_all: float = THRESHOLD
    patterns: Sequence[tuple[str, float]] = ()  # of case labels, as fnmatch has them; the last that fits wins

    def of(self, name: str) -> float:
        """The threshold of the case with this label."""
        return next((share for pattern, share in reversed(self.patterns) if fnmatchcase(name, pattern)), self.of_all)

    def of_family(self, names: Iterable[str]) -> float:
        """Of the mean over these cases: half of theirs, as 1 % is of the usual 2 %."""
        shares = [self.of(name) for name in names]
        return statistics.fmean(shares) * FAMILY_THRESHOLD / THRESHOLD if shares else FAMILY_THRESHOLD


def parse(texts: Iterable[str]) -> Thresholds:
    """["0.02", "swin_t*=0.05"] -> Thresholds. A pattern may hold equals signs, as options of models do."""
    of_all: list[float] = []
    patterns = []
    for text in texts:
        pattern, equals, share = text.rpartition("=")
        (patterns.append((pattern, _share(share, text))) if equals else of_all.append(_share(share, text)))
    if len(of_all) > 1:
        raise UsageError(f"--threshold: got {len(of_all)} values for all cases, expected one, or PATTERN=SHARE")
    return Thresholds(of_all[0] if of_all else THRESHOLD, tuple(patterns))


def _share(value: str, text: str) -> float:
    try:
        share = float(value)
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise UsageError(f"--threshold: got '{text}', expected a share like 0.02, or 'PATTERN=0.05'")
    return share


def refuse_unused(option: str, patterns: Iterable[str], names: Sequence[str]) -> None:
    """UsageError for a pattern that fits no case: what it was meant for would go ungated, and nobody would see it."""
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UsageError(
                f"{option}: got pattern '{pattern}', which fits no case, expected one for a whole label, like "
                f"'{names[0]}', where * stands for anything"
            )
