"""What was not measured, or holds only for this machine: lines of Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from mixprof.reports.answers import Answers
from mixprof.reports.answers.slices import LOWERINGS
from mixprof.reports.text.markdown import Section, bullets, cell, section
from mixprof.reports.text.method import differing, sides, uncounted

NO_KERNEL = {  # formulations that are put together from general operators where nothing fuses them
    "explicit": "attention as two products around a softmax",
    "baddbmm": "attention as two batched products around a softmax",
    "matmul": "position-wise kernels as unfold and products",
    "shift": "position-wise kernels as shifts and multiply-adds",
    "shift_flat": "position-wise kernels as shifts and multiply-adds",
    "unfold_rows": "position-wise kernels as unfold, multiply, sum",
    "unfold_sum": "position-wise kernels as unfold, multiply, sum",
}
NOTHING_FUSES = ("eager", "onnxruntime")
LONGEST = 200  # letters of a reason


def not_measured(answers: Answers, manifests: Mapping[str, Mapping[str, Any]]) -> list[Section]:
    """The section with what a reader of the verdict must know is missing from it."""
    frame = answers.cases
    items = [
        *_unfinished(frame, manifests),
        *_differing(manifests),
        *_by_status(frame),
        *_absent(frame),
        *_unfused(frame),
        *_uncertain(frame),
    ]
    return section("What was not measured", bullets(items) if items else "Nothing that this report knows of.")


def _unfinished(frame: pd.DataFrame, manifests: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for run, manifest in manifests.items():
        cases = (manifest.get("sweep") or {}).get("cases")
        left = cases - int((frame["run"] == run).sum()) if isinstance(cases, int) else 0
        if left > 0:  # less where `--refine` added some
            yield f"**{cell(run)} is not finished**: {left} of its cases were not run."


def _differing(manifests: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """In what the machines and versions of several runs differ: a difference between runs may be theirs."""
    names = differing(sides(manifests, "environment", "versions"))
    if names:
        yield f"The runs **differ** in {cell(', '.join(names))}: what differs between them may be due to that."


def _by_status(frame: pd.DataFrame) -> Iterator[str]:
    """Each status that is not ok, with its commonest reasons."""
    for status, rows in frame[frame["status"] != "ok"].groupby("status"):
        reasons = rows["reason"].fillna("no reason was recorded").value_counts()
        common = "; ".join(f"{cell(_short(reason))} ({count})" for reason, count in reasons.head(2).items())
        more = f"; {len(reasons) - 2} other reasons, in the table" if len(reasons) > 2 else ""
        yield f"{len(rows)} of {len(frame)} cases are **{status}**: {common}{more}."


def _short(reason: str) -> str:
    text = " ".join(str(reason).split()).rstrip(".")
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"


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
        models, lowerings = (cell(_few(sorted(part[name].unique()))) for name in ("model", "lowering"))
        yield f"**Plain implementation**, no kernel of its own: {models} under {lowerings}: {how}."


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
