"""The answers of a report, computed once: figures, text and page are rendered from them."""

from dataclasses import dataclass

import pandas as pd

from mixprof.data.case import ANCHORS
from mixprof.reports.answers.breakdown import breakdown
from mixprof.reports.answers.crossovers import comparable, crossovers, pairings
from mixprof.reports.answers.engines import engines
from mixprof.reports.answers.exchanges import exchanges
from mixprof.reports.answers.exponents import exponents
from mixprof.reports.answers.ratios import Pair, gains, pairs, ratios
from mixprof.reports.answers.slices import places
from mixprof.reports.answers.training import turns


@dataclass(frozen=True)
class Answers:
    """The tables of a report, as the functions of their names document them."""

    cases: pd.DataFrame  # the frame, rows from 0 up, with places, gains, speeds and published accuracy
    ratios: dict[Pair, pd.DataFrame]  # of the pairs that have two records of one setting
    layouts: pd.DataFrame  # the cases in another layout than channels_last, with `gain` over the same case in that
    exchanges: pd.DataFrame
    exponents: pd.DataFrame
    turns: pd.DataFrame  # of verdicts, between inference and steps of training
    crossovers: pd.DataFrame
    comparable: bool  # whether any two models were measured at two places or more of one axis
    rooflines: pd.DataFrame  # the cases that have a place under a roof
    breakdown: pd.DataFrame
    engines: pd.DataFrame

    @property
    def only_built(self) -> bool:
        """Whether engines were built and no case was timed."""
        return bool((self.cases["status"] == "built").any() and not (self.cases["status"] == "ok").any())

    @property
    def simulated(self) -> bool:
        """Whether these are times of a simulated device; none of them is beside measured ones."""
        return bool(self.cases["simulated"].any())

    @property
    def several_runs(self) -> bool:
        return bool(self.cases["run"].nunique() > 1)


def answers(frame: pd.DataFrame) -> Answers:
    """All answers to the records of a frame, or of any subset of its rows."""
    cases = with_derived(frame)
    compared = {pair: ratios(cases, pair) for pair in pairs(cases)}
    under_roofs = cases[["attainable_share", "intensity", "latency_ms"]].notna().all(axis=1)
    under_roofs &= (cases["status"] == "ok") & ~cases["model"].isin(ANCHORS)
    return Answers(
        cases=cases,
        ratios={pair: rows for pair, rows in compared.items() if len(rows)},
        layouts=layouts(cases),
        exchanges=exchanges(cases),
        exponents=exponents(cases),
        turns=turns(cases),
        crossovers=crossovers(cases),
        comparable=next(pairings(comparable(cases)), None) is not None,
        rooflines=cases[under_roofs],
        breakdown=breakdown(cases),
        engines=engines(cases),
    )


def layouts(cases: pd.DataFrame) -> pd.DataFrame:
    """The cases that were measured in channels_last, too, with how many times as fast they are in their own layout."""
    gained = pd.concat(
        [cases.drop(columns=["gain", "gain_low", "gain_high"]), gains(cases, "layout", "channels_last")], axis=1
    )
    return gained[gained["gain"].notna() & ~gained["model"].isin(ANCHORS)]


def _run_gains(cases: pd.DataFrame) -> list[pd.DataFrame]:
    """How many times as fast each case is as in the first run of its testbed; nothing where no testbed has two runs."""
    beds = [rows for _, rows in cases.groupby("testbed", sort=False) if rows["run"].nunique() > 1]
    gained = [gains(rows, "run", rows["run"].iloc[0]) for rows in beds]
    return [pd.concat(gained).reindex(cases.index).add_prefix("run_")] if gained else []


def with_derived(frame: pd.DataFrame) -> pd.DataFrame:
    """The cases with what figures need beside what was measured: places, gains, speeds, published accuracy."""
    cases = frame.reset_index(drop=True)
    derived = [cases, gains(cases, "lowering", "eager"), *_run_gains(cases)]
    images = 1000 * cases["batch"].astype(float)
    pace = cases["host_bound"].map({True: "host-bound", False: "device-bound"})
    return pd.concat(derived, axis=1).assign(
        pace=pace.astype(object).where(pace.notna(), None),
        side=places(cases, "resolution"),
        gflops_per_s=cases["flops"].astype(float) / cases["latency_ms"] / 1e6,
        images_per_s_low=images / cases["latency_high_ms"],
        images_per_s_high=images / cases["latency_low_ms"].where(cases["latency_low_ms"] > 0),
    )
