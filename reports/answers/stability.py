"""Where the faster of two models is another one when a single axis, or the testbed, is another one."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from mixprof.reports.answers.fleet import SETTING, Standing

TESTBED = "testbed"


@dataclass(frozen=True)
class Stability:
    """How the winner depends on an axis, everything besides equal: on one testbed, or over testbeds, counted alone."""

    standing: Standing  # of the pair
    run: str | None  # None where the axis is the testbed
    axis: str
    groups: int  # of settings that differ in the axis alone, with two decided values of it or more
    changes: int  # of these, where both models win
    here: pd.Series | None  # the two rows furthest apart where the winner changes
    there: pd.Series | None


def stability(by_run: Sequence[Standing]) -> list[Stability]:
    """Every axis that varies, testbed by testbed, then the testbed itself. by_run: one pair in one step."""
    axes = [
        _along(one, one.run, name, one.rows) for one in by_run for name in SETTING if one.rows[name].nunique(False) > 1
    ]
    together = pd.concat([one.rows for one in by_run])
    axes.append(_along(by_run[0], None, TESTBED, together))
    return [one for one in axes if one.groups]


def _along(standing: Standing, run: str | None, axis: str, rows: pd.DataFrame) -> Stability:
    others = [name for name in SETTING if name != axis]
    decided = rows[rows["faster"].isin([standing.over, standing.under])]
    groups = [group for _, group in decided.groupby(others, dropna=False) if len(group) > 1] if len(decided) else []
    changing = list(_changing(groups))
    ends = max(changing, key=lambda pair: math.log(pair[0]["ratio"] / pair[1]["ratio"]), default=(None, None))
    return Stability(standing, run, axis, len(groups), len(changing), *ends)


def _changing(groups: Sequence[pd.DataFrame]) -> Iterator[tuple[pd.Series, pd.Series]]:
    """Of each group in which both models win the rows with the largest and the least ratio."""
    for group in groups:
        if group["faster"].nunique() > 1:
            ordered = group.sort_values("ratio", kind="stable")
            yield ordered.iloc[-1], ordered.iloc[0]


def stabilities(compared: Sequence[Sequence[Standing]]) -> list[Stability]:
    """Those of every pair."""
    return list(itertools.chain.from_iterable(map(stability, compared)))
