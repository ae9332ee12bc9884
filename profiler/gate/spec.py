"""A spec from keywords: what a fixture or a notebook gives `ab` instead of a command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mixprof.data.errors import UsageError
from mixprof.data.parsing import nearest
from mixprof.plan.settings import AXES, MEASURE, Axes, Measure, parse_axis

Value = str | int | float | bool | Sequence[str | int] | None


def axes_and_measure(settings: Mapping[str, Value], others: Sequence[str] = ()) -> tuple[Axes, Measure]:
    """Axes and measuring settings by their names with underscores, like resolutions="56,112", max_lost_cpu=0.2.

    others: names that a caller takes besides, for the error. UsageError for an unknown name or a value it cannot have.
    """
    axes: dict[str, Any] = {}
    measured: dict[str, Any] = {}
    for name, value in settings.items():
        if name in AXES:
            axes[name] = parse_axis(name, value, f"{name}=")
        elif name in MEASURE:
            measured[name] = MEASURE[name].kind.parse(value, f"{name}=")
        else:
            raise UsageError(f"got {name}=, expected {nearest(name, [*AXES, *MEASURE, *others])}")
    return Axes(**axes), Measure(**measured)
