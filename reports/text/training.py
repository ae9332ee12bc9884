"""Training steps as Markdown: where they turn a verdict around, their parts, their memory, their errors."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from mixprof.reports.answers import Answers
from mixprof.reports.answers.slices import STEPS, all_in_words, in_words
from mixprof.reports.answers.training import KEPT, OPEN, TURNED
from mixprof.reports.steps import KINDS, PARTS, RATIO
from mixprof.reports.text.markdown import ORDER, Part, Section, Table, bounded, bullets, cell, number, section, words
from mixprof.reports.text.verdict import PLACE, setting

WAY = ["run", "lowering", "device", "dtype", "layout", "mode"]
LISTED = 4  # settings in a sentence
MEBIBYTE = 2**20
TURNS = (
    "Every two models that were timed in inference and in a step of training, in one setting. A verdict turns where "
    "the 95 % intervals of both ratios leave out 1, on opposite sides. Ratios are the second model's latency over that "
    "of the first, which is the faster one in inference. In the table: the pairs of the verdict, and whatever turned."
)
SPLIT = (
    "Parts are timed apart in the same launch, waited for one by one, and the whole by itself: `parts / whole` is "
    "their sum over it. Backward over forward is taken step by step."
)
MEMORY = (
    "Bytes alive at the peak of one step: activations are what autograd saves for the backward, temporaries the rest. "
    "Predicted on tensors without values."
)


def training(answers: Answers) -> list[Section]:
    """The section on steps of training; none where none was measured."""
    cases = answers.cases.sort_values(ORDER)
    timed = cases[cases["forward_ms"].notna()]
    known = cases[cases[["step_peak_bytes", "predicted_step_peak_bytes"]].notna().any(axis=1)]
    tables: tuple[tuple[str, str, pd.DataFrame, Callable[[pd.Series], dict[str, str]]], ...] = (
        ("A step's parts", _extremes(timed) + SPLIT, timed, _parts),
        ("A step's memory", MEMORY, known, _bytes),
    )
    parts = _turns(answers)
    for heading, note, rows, cells in tables:
        if len(rows):
            parts += [f"### {heading}", note, _table(rows, answers.several_runs, cells)]
    return section("Training steps", *parts)


def _turns(answers: Answers) -> list[Part]:
    rows = answers.turns
    if rows.empty:
        return []
    declared = {frozenset((pair.attention, pair.convolution)) for pair in answers.ratios}
    named = np.array([frozenset(pair) in declared for pair in zip(rows["first"], rows["second"], strict=True)])
    counts = ", ".join(f"{(rows['turn'] == turn).sum()} {turn}" for turn in (TURNED, KEPT, OPEN))
    shown = rows[named | (rows["turn"] == TURNED).to_numpy()]
    together = shown.groupby([*WAY, *PLACE, "first", "second"], sort=False, dropna=False)
    lines = Table(tuple(_beside(part, answers.several_runs) for _, part in together))
    sentences = [_sentence(part) for _, part in shown[shown["ratio"] < 1].groupby(["first", "second", "step", "turn"])]
    words = [f"{len(rows)} comparisons: {counts}. {TURNS}", *([bullets(sentences)] if sentences else [])]
    return ["### Where training turns the verdict around", *words, *([lines] if len(shown) else [])]


def _sentence(rows: pd.DataFrame) -> str:
    """Two models that swap places in a step, and the first settings in which they do."""
    row = rows.iloc[0]
    places = [
        f"{setting(row)} ({_interval(row, 'inference_ratio')}, then {_interval(row, 'ratio')})"
        for _, row in rows.head(LISTED).iterrows()
    ]
    more = f" and {len(rows) - LISTED} more" if len(rows) > LISTED else ""
    who = f"**{cell(row['first'])}** wins inference against {cell(row['second'])}, loses the"
    decided = "decided" if row["turn"] == TURNED else OPEN
    return f"{who} {in_words('step', row['step'])} at {cell('; '.join(places))}{more}: {decided}."


def _beside(rows: pd.DataFrame, several_runs: bool) -> dict[str, str]:
    """Two models in one setting: their ratio in inference and in each step."""
    row = rows.iloc[0]
    by_step = {step: part.iloc[0] for step, part in rows.groupby("step")}
    turns = {
        turn: [in_words("step", s) for s in STEPS if s in by_step and by_step[s]["turn"] == turn]
        for turn in (TURNED, OPEN)
    }
    return {
        **({"run": row["run"]} if several_runs else {}),
        **{name: row[name] for name in ("first", "second")},
        "where": all_in_words(row[["dtype", "lowering", "device", *PLACE]].to_dict()),
        "inference": _interval(row, "inference_ratio"),
        **{in_words("step", s): _interval(by_step[s], "ratio") if s in by_step else "" for s in STEPS[1:]},
        "verdict": "; ".join(f"{turn}: {', '.join(steps)}" for turn, steps in turns.items() if steps) or KEPT,
    }


def _interval(row: pd.Series, name: str, unit: str = "") -> str:
    return bounded(*(row[f"{name}{end}{unit}"] for end in ("", "_low", "_high")))


def _extremes(rows: pd.DataFrame) -> str:
    """Where backward takes the smallest and the largest multiple of the forward."""
    ends = rows[rows[RATIO].notna()].sort_values(RATIO).iloc[[0, -1] if len(rows) > 1 else []]
    if ends.empty:
        return ""
    low, high = (f"{_interval(row, RATIO)} ({cell(row['model'])}, {setting(row)})" for _, row in ends.iterrows())
    return f"Backward takes {low} to {high} times the forward. "


def _table(rows: pd.DataFrame, several_runs: bool, cells: Callable[[pd.Series], dict[str, str]]) -> Table:
    names = ["model", *["run"] * several_runs, *(name for name in WAY[1:] if rows[name].nunique() > 1), *PLACE]
    return Table(tuple({**{name: words(row[name]) for name in names}, **cells(row)} for _, row in rows.iterrows()))


def _parts(row: pd.Series) -> dict[str, str]:
    total = sum(row[f"{part}_ms"] for part in PARTS)
    errors = {"gradients' error": row["gradient_error"], "update's error": row["update_error"]}
    return {
        **{f"{part.replace('_', ' ')} (ms)": _interval(row, part, "_ms") for part in PARTS},
        "whole (ms)": bounded(row["latency_ms"], row["latency_low_ms"], row["latency_high_ms"]),
        "parts / whole": number(total / row["latency_ms"]),
        "backward / forward": _interval(row, RATIO),
        "images/s": number(row["images_per_s"]),
        "MFU": "" if pd.isna(row["mfu"]) else f"{row['mfu']:.2%}",
        **{title: "" if pd.isna(error) else f"{error:.1e}" for title, error in errors.items()},
    }


def _bytes(row: pd.Series) -> dict[str, str]:
    peak, predicted = row["step_peak_bytes"], row["predicted_step_peak_bytes"]
    both = not (pd.isna(peak) or pd.isna(predicted))
    return {
        **{f"{kind} (MiB)": number(row[f"step_{kind}_bytes"], MEBIBYTE) for kind in KINDS},
        "peak (MiB)": number(peak, MEBIBYTE),
        "predicted (MiB)": number(predicted, MEBIBYTE),
        "predicted / measured": f"{predicted / peak:.3f}" if both else "",
    }
