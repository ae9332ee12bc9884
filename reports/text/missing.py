"""The limits of a report: what was not measured, or holds only for this machine."""

from collections.abc import Iterator, Sequence

import pandas as pd

from mixprof.data.facts import lowering_facts
from mixprof.reports.answers import Answers
from mixprof.reports.text.markdown import Section, bullets, cell, section
from mixprof.reports.text.measurements import SIMULATED
from mixprof.reports.text.method import Manifests, differing, sides, uncounted

LONGEST = 200  # letters of a reason


def not_measured(answers: Answers, manifests: Manifests) -> list[Section]:
    """The section with what a reader of the verdict must know is missing from it."""
    frame = answers.cases
    items = [*_of_runs(frame, manifests), *_by_status(frame), *_absent(frame, manifests), *_uncertain(frame)]
    return section("What was not measured", bullets(items) if items else "Nothing that this report knows of.")


def _of_runs(frame: pd.DataFrame, manifests: Manifests) -> Iterator[str]:
    """Runs that are not finished; what machines and versions differ in, which a difference of results may be due to."""
    for run, manifest in manifests.items():
        cases = manifest.sweep.cases
        left = cases - int((frame["run"] == run).sum()) if isinstance(cases, int) else 0
        if left > 0:  # less where `--refine` added some
            yield f"**{cell(run)} is not finished**: {left} of its cases were not run."
    if names := differing(sides(manifests, "environment", "versions")):
        yield f"The runs **differ** in {cell(', '.join(names))}: what differs between them may be due to that."


def _by_status(frame: pd.DataFrame) -> Iterator[str]:
    """Each status that is not ok, with its commonest reasons."""
    for status, rows in frame[frame["status"] != "ok"].groupby("status"):
        reasons = rows["reason"].fillna("no reason was recorded").value_counts()
        texts = [(" ".join(str(reason).split()).rstrip("."), count) for reason, count in reasons.head(2).items()]
        short = [(text if len(text) <= LONGEST else text[:LONGEST] + "…", count) for text, count in texts]
        common = "; ".join(f"{cell(text)} ({count})" for text, count in short)
        more = f"; {len(reasons) - 2} other reasons, in the table" if len(reasons) > 2 else ""
        yield f"{len(rows)} of {len(frame)} cases are **{status}**: {common}{more}."


def _absent(frame: pd.DataFrame, manifests: Manifests) -> Iterator[str]:
    """Lowerings and devices that no case was asked for, or that none ran on."""
    asked = {name.split(":")[0] for name in frame["lowering"]}
    known = dict.fromkeys(name for manifest in manifests.values() for name in lowering_facts(manifest))
    if missing := [name for name in known if name not in asked]:
        yield f"No case was asked for under **{', '.join(missing)}**: nothing here says how fast that is."
    on_gpu = frame["device"].str.startswith("cuda")
    if frame["simulated"].any():
        yield SIMULATED
    elif not on_gpu.any():
        yield "**No GPU** was measured: which is faster there is not known from this."
    elif not (on_gpu & (frame["status"] == "ok")).any():
        yield "Cases for a **GPU** have records, and none of them ran on one."


def _uncertain(frame: pd.DataFrame) -> Iterator[str]:
    """Mixers that ran as a plain implementation, not as a kernel made for them, and figures that are less than sure."""
    rows = frame[(frame["status"] == "ok") & frame["plain"].notna()]
    rows = rows.assign(plain=rows["plain"].str.split("; ")).explode("plain")
    for how, part in rows.groupby("plain"):
        models, lowerings = (cell(_few(sorted(part[name].unique()))) for name in ("model", "lowering"))
        yield f"**Plain implementation**, no kernel of its own: {models} under {lowerings}: {how}."
    for reason, part in frame.groupby("choice_failed"):
        models = cell(_few(sorted(part["model"].unique())))
        why = cell(str(reason))
        yield f"**No formulation was chosen** by measurement for {models}, which ran the usual one: {why}."
    if count := int((frame["interval"] == "within-launch").sum()):
        yield f"{count} latencies are of **one launch**: their intervals say nothing of the next."
    if (frame["crosscheck"] == "disagreed").any():
        yield f"{(frame['crosscheck'] == 'disagreed').sum()} engines **disagree** with trtexec."
    if names := uncounted(frame):
        yield f"Some MACs and FLOPs are **at least**: not counted are {names}."


def _few(names: Sequence[str]) -> str:
    rest = f" and {len(names) - 4} others" if len(names) > 5 else ""
    return ", ".join(names[:4] if rest else names) + rest
