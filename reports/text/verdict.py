"""Who is faster: a line for each pair of models and way of running them; and every ratio behind it."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from mixprof.data.case import STEP
from mixprof.reports.answers import Answers
from mixprof.reports.answers.ratios import Pair
from mixprof.reports.answers.slices import USUAL, in_words, step_column
from mixprof.reports.text.markdown import Part, Section, Table, bounded, of_floor, section, words

TOGETHER = ["run", "lowering", "device", "dtype", "layout", "mode", "step"]  # settings of one line
PLACE = ["resolution", "batch", "window", "channels"]
COMMON = {"layout": "channels_last", "mode": "hot", "step": STEP}  # which go without saying


def verdict(answers: Answers) -> list[Section]:
    """The section with who is how many times as fast at the most usual setting, and how it is in all settings."""
    if answers.only_built:
        return section("Who is faster", "Engines were built and none was run: nothing is known of which is faster.")
    lines = [
        (bool(rows["ratio"].notna().any()), _line(pair, dict(zip(TOGETHER, names, strict=True)), rows, answers))
        for pair, compared in answers.ratios.items()
        for names, rows in compared.groupby(TOGETHER, sort=False)
    ]
    lines.sort(key=lambda line: not line[0])  # those without a ratio come last
    table = Table(tuple(cells for _, cells in lines))
    absent = "No pair of attention and convolution was measured in the same setting."
    return section("Who is faster", table if lines else absent)


def _line(pair: Pair, where: Mapping[str, Any], rows: pd.DataFrame, answers: Answers) -> dict[str, str]:
    known = rows[rows["ratio"].notna()]
    best = _most_usual(known) if len(known) else None
    under = [where[name] for name in ("dtype", "lowering", "device")]
    under += [in_words(name, where[name]) for name, common in COMMON.items() if where[name] != common]
    swaps = _swaps(pair, where, answers.crossovers)
    names = (pair.convolution, pair.attention)
    who = " and ".join(names[::-1]) if best is None else " over ".join(names if best["ratio"] >= 1 else names[::-1])
    return {
        **({"run": where["run"]} if answers.several_runs else {}),
        "who": f"{who} ({pair.fairness})",  # the faster one first, by its estimate
        "how much": "" if best is None else f"{_times(best)} times as fast",
        "where": ", ".join([*under, *([] if best is None else [setting(best)])]),
        "decided": decided(best) + _on_plain(pair, best),
        **({"by the floors alone": _by_floors(pair, best)} if len(answers.rooflines) else {}),
        "in all settings": "; ".join(filter(None, [_in_all(pair, known), _missing(rows), swaps])) + ".",
    }


def _times(row: pd.Series) -> str:
    """The ratio, turned over where attention is the faster one."""
    ratio, low, high = row["ratio"], row["ratio_low"], row["ratio_high"]
    return bounded(ratio, low, high) if ratio >= 1 else bounded(1 / ratio, 1 / high, 1 / low)


def decided(row: pd.Series | None) -> str:
    """Whether the interval of the ratio leaves out 1, or why that is not known."""
    if row is None or pd.isna(row["ratio"]):
        return "no ratio"
    if pd.isna(row["faster"]):
        return "no interval"
    answer = "not decided" if row["faster"] == "undecided" else "decided"
    answer += ", provisional: one launch" * (row["interval"] == "within-launch")
    return answer + ", host-bound: forwards wait for the host" * bool(row["host_bound"])


def _on_plain(pair: Pair, row: pd.Series | None) -> str:
    """Whether the faster or the slower one ran as a plain implementation, and which."""
    if row is None:
        return ""
    names = ("convolution", "attention")
    faster, slower = names if row["ratio"] >= 1 else names[::-1]
    ran = ((getattr(pair, side), word, row[f"{side}_plain"]) for side, word in ((faster, "wins"), (slower, "loses")))
    return "".join(f"; {name} {word} on a plain implementation: {how}" for name, word, how in ran if not pd.isna(how))


def _by_floors(pair: Pair, row: pd.Series | None) -> str:
    """ "depthwise_conv, 1.8 times as fast (they reach 61% and 40%)": what arithmetic and least bytes would say."""
    if row is None or pd.isna(row["floor_ratio"]):
        return ""
    ratio, names = row["floor_ratio"], (pair.convolution, pair.attention)
    shares = [of_floor(row[f"{side}_attainable_share"]) for side in ("convolution", "attention")]
    first, times = (0, ratio) if ratio >= 1 else (1, 1 / ratio)
    return (
        f"{names[first]}, {bounded(times, None, None)} times as fast ({names[0]} is at {shares[0]} of its floor, "
        + (f"{names[1]} at {shares[1]})")
    )


def _in_all(pair: Pair, known: pd.DataFrame) -> str:
    """ "depthwise_conv is faster in 3 of 4 settings, window_attention in 0, 1 undecided (ratios 1.2 to 2.1)" """
    if known.empty:
        return ""
    if len(known) == 1:
        return "measured in this setting alone"
    counts = {name: int((known["faster"] == name).sum()) for name in (pair.convolution, pair.attention, "undecided")}
    counts["without an interval"] = int(known["faster"].isna().sum())
    text = f"{pair.convolution} is faster in {counts.pop(pair.convolution)} of {len(known)} settings, "
    text += f"{pair.attention} in {counts.pop(pair.attention)}"
    text += "".join(f", {count} {name}" for name, count in counts.items() if count)
    return f"{text} ({bounded(known['ratio'].min(), None, None)} to {bounded(known['ratio'].max(), None, None)} times)"


def _missing(rows: pd.DataFrame) -> str:
    """How many settings have no ratio, by the status that leaves none."""
    statuses = rows.loc[rows["ratio"].isna(), "status"].value_counts()
    return ", ".join(f"{count} without a ratio ({status})" for status, count in statuses.items())


def _swaps(pair: Pair, where: Mapping[str, Any], crossings: pd.DataFrame) -> str:
    """ "they swap places at resolution 24.1 [22.9, 25.6] (batch 1, window 7), window_attention faster below"."""
    both = {pair.attention, pair.convolution}
    of_pair = crossings[crossings["first"].isin(both) & crossings["second"].isin(both)]
    places = []
    for axis, part in of_pair[of_pair[TOGETHER].eq(pd.Series(where)).all(axis=1)].groupby("axis"):
        row = _most_usual(part)
        fixed = ", ".join(in_words(name, row[name]) for name in PLACE[:3] if name != axis and not pd.isna(row[name]))
        more = f" and {len(part) - 1} more in other settings" if len(part) > 1 else ""
        place = bounded(row["place"], row["low"], row["high"])
        places.append(f"{axis} {place} ({fixed}), {row['first']} faster below{more}")
    return f"they swap places at {', at '.join(places)}" if places else ""


def _most_usual(rows: pd.DataFrame) -> pd.Series:
    """The row of the most usual setting, the larger where two are as usual."""

    def rank(place: Any) -> tuple[int, int]:
        row = rows.loc[place]
        agrees = sum(bool(row[name] == value) for name, value in USUAL.items() if not pd.isna(row[name]))
        at_side = str(row["resolution"]) == ("56" if row["kind"] == "mixer" else "224")
        return agrees + 2 * at_side, 0 if pd.isna(row.get("height", pd.NA)) else int(row["height"])

    return rows.loc[max(rows.index, key=rank)]


def setting(row: pd.Series) -> str:
    """ "56x56, batch 1, window 7, 96 channels"."""
    return ", ".join(in_words(name, row[name]) for name in PLACE if not pd.isna(row[name]))


def every_ratio(answers: Answers) -> list[Section]:
    """The section with every ratio, a table per pair."""
    if answers.only_built:
        return []
    names = [*["run"] * answers.several_runs, *TOGETHER[1:-1], *step_column(answers.cases), *PLACE]
    parts: list[Part] = []
    for pair, rows in answers.ratios.items():
        ordered = rows.sort_values([*TOGETHER, "height", "width", "batch", "window", "channels"])
        cells = (_cells(row, names) for _, row in ordered.iterrows())
        parts += [f"### {pair.attention} over {pair.convolution} ({pair.fairness})", Table(tuple(cells))]
    return section("Attention over convolution, setting by setting", *parts)


def _cells(row: pd.Series, names: list[str]) -> dict[str, str]:
    ratio = bounded(row["ratio"], row["ratio_low"], row["ratio_high"]) or str(row["status"])
    ratio += " (host-bound)" * bool(row["host_bound"])
    faster = "" if pd.isna(row["faster"]) else str(row["faster"])
    floors = {
        "by the floors": bounded(row["floor_ratio"], None, None),
        "attention of floor": of_floor(row["attention_attainable_share"]),
        "convolution of floor": of_floor(row["convolution_attainable_share"]),
    }
    return {**{name: words(row[name]) for name in names}, "ratio": ratio, **floors, "faster": faster}
