"""Which cases to add so that crossovers are known more closely: bisection between the points that hold them."""

from dataclasses import replace

import numpy as np
import pandas as pd

from mixprof.data.case import Case
from mixprof.reports.answers.crossovers import Pairing, comparable, decided, pairings

CLOSE = 1.05  # beyond over below: where bisection ends
DECIDED = 0.975  # chance of a one-sided bound: the 95 % interval of the ratio leaves out 1


def next_cases(frame: pd.DataFrame) -> list[Case]:
    """Cases between neighbouring places at which two models swap places, both models at the middle; empty when done.

    Two places hold a crossover when at each the 95 % interval of the ratio leaves out 1, on opposite sides. They are
    halved until they are 5 % apart, no whole number lies between them, or the interval at the middle holds 1: there
    the noise says stop. What the frame has already is not asked for again, whatever its status.
    """
    rows = comparable(frame)
    known = {case_of(row) for _, row in frame.iterrows()}
    wanted = [case for pairing in pairings(rows) for case in _middles(pairing, rows)]
    return [case for case in dict.fromkeys(wanted) if case not in known]


def case_of(row: pd.Series) -> Case:
    """The case that a row of the frame is about."""
    return Case(
        **{name: str(row[name]) for name in ("model", "lowering", "device", "dtype", "layout", "mode", "step")},
        batch=int(row["batch"]),
        resolution=(int(row["height"]), int(row["width"])),
        window=None if pd.isna(row["window"]) else int(row["window"]),
        channels=None if pd.isna(row["channels"]) else int(row["channels"]),
    )


def _middles(pairing: Pairing, rows: pd.DataFrame) -> list[Case]:
    """Both models in the middle of every bracket of one line."""
    signs = decided(pairing.points, DECIDED)
    cases = []
    for at in np.flatnonzero(signs[:-1] * signs[1:] < 0):
        ends = [rows.iloc[side[at + more]] for side in pairing.rows.T for more in (0, 1)]
        low, high = np.exp(pairing.places[[at, at + 1]])
        place = middle(low, high, step=2 if _odd(pairing, ends) else 1)
        if place is not None and (pairing.axis != "resolution" or all(end["height"] == end["width"] for end in ends)):
            cases += [_moved(case_of(end), pairing.axis, place) for end in ends[::2]]
    return cases


def _odd(pairing: Pairing, ends: list[pd.Series]) -> bool:
    """Whether only odd values are to be tried: a kernel has a middle, so its windows are odd."""
    return pairing.axis == "window" and all(end["window"] % 2 == 1 for end in ends)


def middle(low: float, high: float, step: int = 1) -> int | None:
    """The whole number between two that is nearest to their geometric mean, in steps from the lower one."""
    first, last = round(low), round(high)
    inner = np.arange(first + step, last, step)
    if high / low <= CLOSE or not len(inner):
        return None
    return int(inner[np.argmin(np.abs(np.log(inner) - np.log(low * high) / 2))])


def _moved(case: Case, axis: str, place: int) -> Case:
    if axis == "resolution":
        return replace(case, resolution=(place, place))
    return replace(case, batch=place) if axis == "batch" else replace(case, window=place)
