"""The comparisons the suite is for: attention over convolution in one setting, with an interval for the ratio."""

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mixprof.reports.latencies import RATIO, ratio

IDENTITY = ["run", "model", "lowering", "device", "dtype", "layout", "mode", "batch", "height", "width", "window"]
IDENTITY += ["channels", "step"]
SAME = ["run", "lowering", "device", "dtype", "layout", "mode", "batch", "resolution", "height", "width", "window"]
SAME += ["channels", "kind", "step"]
OF_SIDE = ("attainable_ms", "attainable_share", "plain")  # of a case: what each side of a ratio brings along

METHOD = (
    "A ratio is latency over latency, above 1 when attention is the slower one. Its 95 % t interval is of the "
    "difference of the two mean logarithms over launches. Of two that ran in the same rounds what these share, such as "
    "the machine's drift, cancels; each side's own variance is moderated by those of the run's other cases (empirical "
    "Bayes, from eight cases of a device up; of fewer the differences are taken round by round). Crossovers, "
    "exponents, speed-ups and exchanged mixers rest on the same intervals. An interval that holds 1 is undecided. Each "
    "interval stands alone: with many settings, about one in twenty misses its true ratio."
)


@dataclass(frozen=True)
class Pair:
    """Two models whose latencies are divided, `attention` over `convolution`."""

    attention: str
    convolution: str
    fairness: str  # what differs between the two


def pairs(frame: pd.DataFrame) -> list[Pair]:
    """The pairs of models that a frame's models name themselves: mixers before networks."""
    rows = frame.loc[frame["compared_with"].notna(), ["kind", "model", "compared_with"]].drop_duplicates()
    listed = [
        (kind, Pair(model, other, fairness))
        for kind, model, compared_with in rows.itertuples(index=False)
        for other, fairness in json.loads(compared_with).items()
    ]
    return [pair for _, pair in sorted(listed, key=lambda pair: (pair[0], pair[1].fairness, pair[1].attention))]


def ratios(frame: pd.DataFrame, pair: Pair) -> pd.DataFrame:
    """One row per setting that both models of the pair have a record of.

    SAME, then `status` ("ok", or the first status that is not, attention's before
    convolution's), RATIO, and `faster`: a model's name, "undecided", or missing where
    there is no interval; OF_SIDE of each side as `attention_…` and `convolution_…`, and
    `floor_ratio`, that of their floors.
    """
    frame = frame.reset_index(drop=True)
    both = beside(frame[frame["model"] == pair.attention], frame[frame["model"] == pair.convolution], SAME)
    top, bottom = both["top"].to_numpy(), both["bottom"].to_numpy()
    compared = ratio(frame, top, bottom)
    status = frame["status"].to_numpy()
    compared.insert(0, "status", np.where(status[top] == "ok", status[bottom], status[top]))
    faster = np.where(compared["ratio_high"] < 1, pair.attention, "undecided")
    faster = np.where(compared["ratio_low"] > 1, pair.convolution, faster)
    compared["faster"] = pd.Series(faster, dtype=object).where(compared["interval"].notna(), None)
    sides = {
        f"{side}_{name}": frame.reindex(columns=OF_SIDE)[name].to_numpy()[rows]
        for side, rows in (("attention", top), ("convolution", bottom))
        for name in OF_SIDE
    }
    compared = compared.assign(**sides)
    compared["floor_ratio"] = compared["attention_attainable_ms"] / compared["convolution_attainable_ms"]
    return pd.concat([both[SAME], compared], axis=1)


def gains(frame: pd.DataFrame, column: str, base: str) -> pd.DataFrame:
    """`gain`, `gain_low`, `gain_high` for each row of the frame: the latency of `base` over the row's own.

    How many times as fast a case is as the same case with `base` in `column`. Missing for the bases themselves and
    where either was not measured; the bounds are missing where either has no interval.
    """
    rows = frame.reset_index(drop=True)
    both = beside(rows[rows[column] == base], rows[rows[column] != base], [n for n in IDENTITY if n != column])
    gained = pd.DataFrame(np.nan, index=rows.index, columns=["gain", "gain_low", "gain_high"])
    compared = ratio(rows, both["top"].to_numpy(), both["bottom"].to_numpy())
    gained.loc[both["bottom"]] = compared[list(RATIO[:3])].to_numpy()
    return gained.set_axis(frame.index)


def beside(top: pd.DataFrame, bottom: pd.DataFrame, same: list[str]) -> pd.DataFrame:
    """The rows that agree in these columns: these, and the positions `top` and `bottom` in the frame of both.

    top, bottom: rows of one frame, whose index is 0, 1, 2, ...
    """
    return top[same].assign(top=top.index).merge(bottom[same].assign(bottom=bottom.index), on=same)
