"""Two models on several testbeds: who is faster on each, in how many settings. No number here is of two testbeds."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from mixprof.data.case import ANCHORS
from mixprof.reports.answers.ratios import SAME, Pair, ratios
from mixprof.reports.answers.slices import by_step

SETTING = [name for name in SAME if name not in ("run", "height", "width", "kind", "step")]


@dataclass(frozen=True)
class Standing:
    """One model held against another on one testbed, in one step of training or in inference."""

    over: str
    under: str
    run: str
    step: str
    rows: pd.DataFrame  # as `ratios` has them where there is one, of the time of `under` over that of `over`

    def count(self, faster: str) -> int:
        """In how many settings a model, or "undecided", came out."""
        return int((self.rows["faster"] == faster).sum())

    @property
    def decided(self) -> int:
        return self.count(self.over) + self.count(self.under)

    @property
    def winner(self) -> str | None:
        """The model that is faster in more of its decided settings; None where neither is."""
        over, under = self.count(self.over), self.count(self.under)
        return None if over == under else self.over if over > under else self.under


def standings(cases: pd.DataFrame) -> list[list[Standing]]:
    """For each two models of one kind and step their standings, a testbed each; `over` wins on more of them."""
    return [by_run for pair in _pairs(cases) for by_run in _by_step(cases, pair)]


def _pairs(cases: pd.DataFrame) -> Iterator[Pair]:
    models = cases[~cases["model"].isin(ANCHORS)]
    for _, rows in models.groupby("kind"):
        yield from (Pair(*names, "") for names in itertools.combinations(rows["model"].unique(), 2))


def _by_step(cases: pd.DataFrame, pair: Pair) -> Iterator[list[Standing]]:
    compared = ratios(cases, pair)
    for _, _, _, rows in by_step(compared[compared["ratio"].notna()]):
        yield list(_by_run(rows, pair))


def _by_run(rows: pd.DataFrame, pair: Pair) -> Iterator[Standing]:
    # A ratio is of the pair's first model over its second: above 1 the second is the faster one.
    kept = [
        Standing(pair.convolution, pair.attention, str(run), of_run["step"].iloc[0], of_run)
        for run, of_run in rows.groupby("run", sort=False)
    ]
    wins = sum((each.winner == each.over) - (each.winner == each.under) for each in kept)
    yield from kept if wins >= 0 else map(_turned, kept)


def _turned(standing: Standing) -> Standing:
    rows = standing.rows
    turned = rows.assign(ratio=1 / rows["ratio"], ratio_low=1 / rows["ratio_high"], ratio_high=1 / rows["ratio_low"])
    return Standing(standing.under, standing.over, standing.run, standing.step, turned)
