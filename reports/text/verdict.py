"""The verdict in words, and beside it what was not measured. Each item is one line of Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from mixprof.reports.answers.ratios import PAIRS, Pair, ratios
from mixprof.reports.answers.slices import LOWERINGS, USUAL, in_words
from mixprof.reports.text.headline import TOGETHER, only_built, sentence, setting
from mixprof.reports.text.markdown import cell
from mixprof.reports.text.summary import DIFFERS, compared, uncounted, unfinished

NO_KERNEL = {  # formulations that are put together from general operators where nothing fuses them
    "explicit": "attention as two products around a softmax",
    "baddbmm": "attention as two batched products around a softmax",
    "matmul": "position-wise kernels as unfold and products",
    "shift": "position-wise kernels as shifts and multiply-adds",
    "shift_flat": "position-wise kernels as shifts and multiply-adds",
    "unfold_rows": "position-wise kernels as unfold, multiply, sum",
    "unfold_sum": "position-wise kernels as unfold, multiply, sum",
}
NO_RATIO = "no ratio of"
NOTHING_FUSES = ("eager", "onnxruntime")


def verdict(frame: pd.DataFrame, crossings: pd.DataFrame | None = None) -> list[str]:
    """Per pair of models and way of running them: which is how many times as fast at the most usual setting.

    crossings: a row for each place along an axis where two models swap places, None where nobody looked: `first`
    is faster below `place` (95 %: `low` to `high`), `second` beyond; `axis`, and the columns of a case held fixed.
    """
    if only_built(frame):
        return ["Engines were built and none was run: nothing is known of which is faster."]
    several, items = frame["run"].nunique() > 1, []
    for pair in PAIRS:
        for names, rows in ratios(frame, pair).groupby(TOGETHER, sort=False):
            where = dict(zip(TOGETHER, names, strict=True))
            said = _item(pair, where, rows, several)
            items.append(said if crossings is None else said + _swaps(pair, where, rows, crossings))
    items.sort(key=lambda item: NO_RATIO in item)
    return items or ["No pair of attention and convolution was measured in the same setting."]


def _item(pair: Pair, where: Mapping[str, Any], rows: pd.DataFrame, several: bool) -> str:
    """ "On this machine, in float32 under eager, **depthwise_conv is 1.8 [1.7, 1.9] times as fast** ..." """
    machine = f"In run {where['run']}" if several else "On this machine"
    unusual = [name for name in (where["layout"], where["mode"]) if name not in ("channels_last", "hot")]
    how = ", ".join([f"in {where['dtype']} under {where['lowering']} on {where['device']}", *unusual])
    known = rows[rows["ratio"].notna()]
    if known.empty:
        return f"{cell(machine)}, {cell(how)}: {NO_RATIO} {_names(pair)}; {sentence(rows, pair)}."
    chosen = _most_usual(known)
    said = f"{cell(machine)}, {cell(how)}, {_faster(chosen, pair)} at {cell(setting(chosen))} ({pair.fairness})"
    return f"{said}. In all: {sentence(rows, pair)}." if len(rows) > 1 else f"{said}."


def _swaps(pair: Pair, where: Mapping[str, Any], rows: pd.DataFrame, crossings: pd.DataFrame) -> str:
    """ " They swap places at resolution 24.1 [22.9, 25.6] (batch 1, window 7), **window_attention** faster below." """
    both = {pair.attention, pair.convolution}
    of_pair = crossings["first"].isin(both) & crossings["second"].isin(both)
    same = crossings[TOGETHER].eq(pd.Series(where)).all(axis=1)
    told = []
    for axis, part in crossings[same & of_pair].groupby("axis"):
        row = _most_usual(part)
        held = [name for name in ("resolution", "batch", "window") if name != axis and not pd.isna(row[name])]
        at = f"{axis} {row['place']:.3g} [{row['low']:.3g}, {row['high']:.3g}]"
        more = f"; {len(part) - 1} more in other settings" if len(part) > 1 else ""
        fixed = ", ".join(in_words(name, row[name]) for name in held)
        told.append(f"{at} ({fixed}), **{cell(row['first'])}** faster below{more}")
    if told:
        return f" They swap places at {'; at '.join(told)}."
    along = any(rows.loc[rows["ratio"].notna(), axis].nunique() > 1 for axis in ("resolution", "batch", "window"))
    return " No place where they swap is beyond doubt." if along else ""


def _most_usual(rows: pd.DataFrame) -> pd.Series:
    """The row of the most usual setting, the larger where two are as usual."""
    return rows.loc[max(rows.index, key=lambda row: _usual(rows.loc[row]))]


def _usual(row: pd.Series) -> tuple[int, int]:
    """A sort key: the more usual, then the larger."""
    side = "56" if row["kind"] == "mixer" else "224"
    agrees = sum(bool(row[name] == value) for name, value in USUAL.items() if not pd.isna(row[name]))
    at_side = str(row["resolution"]) == side
    return agrees + 2 * at_side, 0 if pd.isna(row.get("height", pd.NA)) else int(row["height"])


def _faster(row: pd.Series, pair: Pair) -> str:
    """Which of the two is how many times as fast; the ratio is turned over where attention is."""
    ratio, low, high = row["ratio"], row["ratio_low"], row["ratio_high"]
    first, second = pair.convolution, pair.attention
    if ratio < 1:
        first, second, ratio, low, high = second, first, 1 / ratio, 1 / high, 1 / low
    bounds = "" if pd.isna(low) else f" [{low:.3g}, {high:.3g}]"
    if row["faster"] == "undecided":
        told = f"{_names(pair)} are **not told apart**: {cell(first)} is {ratio:.3g}{bounds} times as fast"
    else:
        told = f"**{cell(first)} is {ratio:.3g}{bounds} times as fast as {cell(second)}**"
    provisional = " (one launch: provisional)" if row["interval"] == "within-launch" else ""
    return told + (provisional or (" (no interval)" if not bounds else ""))


def _names(pair: Pair) -> str:
    return f"{cell(pair.attention)} and {cell(pair.convolution)}"


def not_measured(frame: pd.DataFrame, manifests: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What a reader of the verdict must know is missing from it, or holds only for this machine."""
    found = (
        *unfinished(frame, manifests),
        *_differing(manifests),
        *_by_status(frame),
        *_absent(frame),
        *_unfused(frame),
        *_uncertain(frame),
    )
    return list(found)


def _by_status(frame: pd.DataFrame) -> Iterator[str]:
    """Each status that is not ok, with its commonest reasons."""
    for status, rows in frame[frame["status"] != "ok"].groupby("status"):
        reasons = rows["reason"].fillna("no reason was recorded").value_counts()
        told = "; ".join(f"{cell(_short(reason))} ({count})" for reason, count in reasons.head(2).items())
        more = f"; {len(reasons) - 2} other reasons, in the table" if len(reasons) > 2 else ""
        yield f"{len(rows)} of {len(frame)} cases are **{status}**: {told}{more}."


def _short(reason: str) -> str:
    text = " ".join(str(reason).split()).rstrip(".")
    return text if len(text) <= 200 else text[:200] + "…"


def _absent(frame: pd.DataFrame) -> Iterator[str]:
    """Lowerings and devices that no case was asked for, or that none ran on."""
    asked = {name.split(":")[0] for name in frame["lowering"]}
    if missing := [name for name in LOWERINGS if name not in asked]:
        yield f"No case was asked for under **{', '.join(missing)}**: nothing here says how fast that is."
    on_gpu = frame["device"].str.startswith("cuda")
    if not on_gpu.any():
        yield "**No GPU** was measured: which is faster there is not known from this."
    elif not (on_gpu & (frame["status"] == "ok")).any():
        yield "Cases for a **GPU** have records, and none of them ran on one."


def _unfused(frame: pd.DataFrame) -> Iterator[str]:
    """Mixers that ran as a plain implementation, not as a kernel made for them."""
    base = frame["lowering"].str.split(":").str[0]
    rows = frame[(frame["status"] == "ok") & base.isin(NOTHING_FUSES) & frame["formulation"].notna()]
    rows = rows.assign(how=rows["formulation"].str.split(", ")).explode("how")
    for how, part in rows.assign(how=rows["how"].map(NO_KERNEL)).groupby("how"):
        models, lowerings = (_few(sorted(part[name].unique())) for name in ("model", "lowering"))
        said = f"{cell(models)} under {cell(lowerings)}: {how}"
        yield f"**Plain implementation**, no kernel of its own: {said}."


def _few(names: Sequence[str]) -> str:
    rest = f" and {len(names) - 4} others" if len(names) > 5 else ""
    return ", ".join(names[:4] if rest else names) + rest


def _uncertain(frame: pd.DataFrame) -> Iterator[str]:
    if count := int((frame["interval"] == "within-launch").sum()):
        yield f"{count} latencies are of **one launch**: their intervals say nothing of the next."
    if (frame["crosscheck"] == "disagreed").any():
        yield f"{(frame['crosscheck'] == 'disagreed').sum()} engines **disagree** with trtexec."
    if names := uncounted(frame):
        yield f"Some MACs and FLOPs are **at least**: not counted are {names}."


def _differing(manifests: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """In what the machines and versions of several runs differ: a difference between runs may be theirs."""
    sides = {
        part: {run: each.get(part) or {} for run, each in manifests.items()} for part in ("environment", "versions")
    }
    names = [row["setting"].removesuffix(DIFFERS) for row in compared(sides) if row["setting"].endswith(DIFFERS)]
    if names:
        yield f"The runs **differ** in {cell(', '.join(names))}: what differs between them may be due to that."
