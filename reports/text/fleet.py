"""Several testbeds in one report: a row and a verdict each, claims that can be cited, growth side by side."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from mixprof.data.case import STEP
from mixprof.data.fleet import testbed_name
from mixprof.reports.answers import Answers
from mixprof.reports.answers.fleet import SETTING, Standing, standings
from mixprof.reports.answers.slices import in_words
from mixprof.reports.answers.stability import Stability, stabilities
from mixprof.reports.text.markdown import Part, Section, Table, bounded, bullets, cell, section
from mixprof.reports.text.method import Manifests

LISTED = 6  # settings at most that a claim names
METHOD = (
    "Each testbed has a verdict of its own, from ratios within it: the model that is faster in more of the settings "
    "that are decided there (95 % interval without 1). Nothing is averaged over testbeds."
)
CHANGES = (
    "Settings that differ in one axis alone, on one testbed, or in the testbed alone, where two or more are decided: "
    "in how many of these both models win, and the two ratios furthest apart. Testbeds are counted, never averaged."
)
LINE = ["model", "lowering", "device", "dtype", "layout", "mode", "step"]
LINE += ["channels", "resolution", "batch", "window", "axis"]
NAMED = ("model", "first", "second", "axis")  # columns of every such table
CROSSING = ["first", "second", *LINE[1:]]


def fleet(answers: Answers, manifests: Manifests) -> list[Section]:
    """Sections for runs of two testbeds or more; none for others."""
    if len({testbed_name(manifest) for manifest in manifests.values()}) < 2:
        return []
    compared = standings(answers.cases)
    agreed = bullets(_agreement(by_run) for by_run in compared)
    claims = bullets(claim(each) for by_run in compared for each in by_run)
    declared = [{pair.attention, pair.convolution} for pair in answers.ratios]
    shown = [by_run for by_run in compared if {by_run[0].over, by_run[0].under} in declared]
    verdicts = Table(tuple(_row(run, shown, answers.cases) for run in manifests))
    return [
        *section("The fleet", METHOD, verdicts, *([agreed] if agreed else [])),
        *(section("Claim cards", claims) if claims else []),
        *section("Where the winner changes", *_changes(compared)),
        *section("Growth by testbed", *_beside(answers)),
    ]


def _row(run: str, compared: list[list[Standing]], cases: pd.DataFrame) -> dict[str, str]:
    """A testbed with its cases, and for each two models the verdict there."""
    mine = cases[cases["run"] == run]
    verdicts = {
        f"{by_run[0].over} or {by_run[0].under}{_in(by_run[0])}": next(
            (_verdict(one) for one in by_run if one.run == run), "not compared"
        )
        for by_run in compared
    }
    return {"testbed": run, "cases ok": f"{(mine['status'] == 'ok').sum()} of {len(mine)}", **verdicts}


def _in(standing: Standing) -> str:
    """ ", training step"; nothing of inference."""
    return "" if standing.step == STEP else f", {in_words('step', standing.step)}"


def _verdict(standing: Standing) -> str:
    if standing.winner is None:
        return f"undecided in {len(standing.rows)}" if not standing.decided else "neither"
    return f"{standing.winner}, in {standing.count(standing.winner)} of {len(standing.rows)}"


def _agreement(by_run: list[Standing]) -> str:
    """ "a over b: same winner on 3 of 4 testbeds; on l4 b"."""
    over = by_run[0].over
    same = [one for one in by_run if one.winner == over]
    others = [f"on {cell(one.run)} {cell(one.winner or 'neither')}" for one in by_run if one.winner != over]
    text = f"**{cell(over)} over {cell(by_run[0].under)}**{_in(by_run[0])}: "
    text += f"same winner on {len(same)} of {len(by_run)} testbeds"
    return "; ".join([text, *others]) + "."


def claim(standing: Standing) -> str:
    """ "a over b on h100: 41 of 48 settings, decided in 44; not in float16 batch 1 (0.8 [0.7, 0.9])"."""
    rows, over = standing.rows, standing.over
    varying = [name for name in SETTING if rows[name].nunique(dropna=False) > 1]
    text = (
        f"**{cell(over)} over {cell(standing.under)}**{_in(standing)} on {cell(standing.run)}: "
        f"{standing.count(over)} of {len(rows)} "
    )
    parts = [f"{text}settings, decided in {standing.decided}"]
    for word, part in (("not in", rows[rows["faster"] == standing.under]), ("open in", rows[~_decided(standing)])):
        settings = [_setting(row, varying) for _, row in part.iterrows()]
        more = f" and {len(settings) - LISTED} more" if len(settings) > LISTED else ""
        if settings:
            parts.append(f"{word} {'; '.join(settings[:LISTED])}{more}")
    return "; ".join(parts) + "."


def _decided(standing: Standing) -> pd.Series:
    return standing.rows["faster"].isin([standing.over, standing.under])


def _setting(row: pd.Series, varying: list[str]) -> str:
    return cell(_plain(row, varying))


def _plain(row: pd.Series, varying: list[str]) -> str:
    """A setting by what varies, and the ratio there with its interval."""
    names = " ".join(in_words(name, row[name]) for name in varying if not pd.isna(row[name]))
    return f"{names} ({bounded(row['ratio'], row['ratio_low'], row['ratio_high'])})".strip()


def _changes(compared: list[list[Standing]]) -> Iterator[Part]:
    """A line for each pair, testbed and axis: how often the winner is another one along it, and where most clearly."""
    rows = [
        {
            "models": f"{one.standing.over} over {one.standing.under}{_in(one.standing)}",
            "testbed": one.run or "",
            "axis": one.axis,
            "changes": f"{one.changes} of {one.groups}",
            "most clearly": _ends(one),
        }
        for one in stabilities(compared)
    ]
    if rows:
        yield CHANGES
        yield Table(tuple(rows))


def _ends(one: Stability) -> str:
    if one.here is None or one.there is None:
        return ""
    names = [name for name in SETTING if name == one.axis or one.standing.rows[name].nunique(dropna=False) > 1]
    return "; ".join(
        f"{str(row['run']) + ', ' if one.run is None else ''}{_plain(row, names)}" for row in (one.here, one.there)
    )


def _beside(answers: Answers) -> Iterator[Part]:
    """Exponents, then places where two models swap, a column a testbed."""
    latency = (
        answers.exponents[answers.exponents["metric"] == "latency"] if len(answers.exponents) else answers.exponents
    )
    for title, rows, index, value in (
        ("Exponents of latency", latency, LINE, "slope"),
        ("Where two models swap places", answers.crossovers, CROSSING, "place"),
    ):
        if len(rows):
            yield f"### {title}, testbed beside testbed"
            runs = [str(run) for run in answers.cases["run"].unique()]
            yield Table(tuple(_lines(rows, [name for name in index if name in rows], value, runs)))


def _lines(rows: pd.DataFrame, index: list[str], value: str, runs: list[str]) -> Iterator[Mapping[str, str]]:
    """A line for each models and setting of `index`, with the value and its interval on each testbed, or "none"."""
    shown = [name for name in index if name in NAMED or rows[name].nunique(dropna=False) > 1]
    for names, part in rows.groupby(index, dropna=False, sort=False):
        setting: dict[str, Any] = dict(zip(index, names, strict=True))
        by_run = {str(row["run"]): bounded(row[value], row["low"], row["high"]) for _, row in part.iterrows()}
        line = {name: "" if pd.isna(setting[name]) else in_words(name, setting[name]) for name in shown}
        yield line | {run: by_run.get(run) or "none" for run in runs}
