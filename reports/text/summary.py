"""summary.md: who wins where, every case with its interval, every failure with its reason, how it was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mixprof.reports.answers.breakdown import breakdown_table
from mixprof.reports.answers.ratios import METHOD
from mixprof.reports.answers.roofline import roofline_table
from mixprof.reports.answers.slices import lowering_order
from mixprof.reports.frame import ANCHOR, load
from mixprof.reports.text.growth import crossings_section, growth
from mixprof.reports.text.headline import headline, pair_tables
from mixprof.reports.text.lowering import built_in_words, built_only, proof_of_lowering
from mixprof.reports.text.markdown import cell, number, plain_table, table
from mixprof.reports.text.memory import prediction_table
from mixprof.reports.text.mixer_exchange import fair_table

ORDER = ["run", "lowering", "dtype", "model", "height", "width", "batch", "window", "channels"]
RARELY_VARIED = ("device", "layout", "mode")
MEBIBYTE, BILLION = 2**20, 1e9
DIFFERS = " (differs)"
INTERVALS = {
    "launches": "a 95 % t interval over the logarithms of the launches' medians, around their geometric mean",
    "within-launch": "a 95 % interval within the only launch, widened by an assumed slow drift of the machine; "
    "it says nothing of how another launch would differ",
}


def summary(frame: pd.DataFrame, environments: Mapping[str, Mapping[str, Any]]) -> str:
    """The report as Markdown. `environments`: the manifest of each run by its name."""
    failed = frame[(frame["status"] != "ok") & ~built_only(frame)]
    parts = [
        f"# mixprof: {', '.join(environments) or 'no run'}",
        counts_in_words(frame),
        *unfinished(frame, environments),
        *headline(frame),
        *fair_table(frame),
        *ok_tables(frame[frame["status"] == "ok"]),
        *built_in_words(frame),
        *failed_table(failed),
        *pair_tables(frame),
        *growth(frame),
        *crossings_section(frame),
        *proof_of_lowering(frame),
        *roofline_table(frame),
        *breakdown_table(frame),
        *prediction_table(frame),
        *method(frame, environments),
        *environment_table(environments),
    ]
    return "\n\n".join(parts) + "\n"


def counts_in_words(frame: pd.DataFrame) -> str:
    """ "9 cases: 8 ok, 1 oom.", and plainly so when nothing was ok."""
    counts = frame["status"].value_counts()
    if frame.empty:
        return "No case has a record: nothing was measured."
    words = f"{len(frame)} cases: {', '.join(f'{count} {status}' for status, count in counts.items())}."
    if counts.get("ok"):
        return words
    if counts.get("built"):
        return f"**Engines were built and none was run**, so there is no latency to show. {words}"
    return f"**Nothing was ok**, so there is no latency to show. {words}"


def unfinished(frame: pd.DataFrame, environments: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """How many cases of each run's sweep have no record, where that is some."""
    planned = {run: (manifest.get("sweep") or {}).get("cases") for run, manifest in environments.items()}
    left = {run: cases - int((frame["run"] == run).sum()) for run, cases in planned.items() if isinstance(cases, int)}
    return [
        f"**{cell(run)} is not finished**: {count} of its cases were not run."
        for run, count in left.items()
        if count > 0  # less where `--refine` added some
    ]


def short(run: str | Path) -> str:
    """One plain-text table of a run for the terminal: a line a case, its latency or why there is none."""
    frame = load(run)
    if frame.empty:
        return counts_in_words(frame)
    names = ["model", "lowering", "device", *varying(frame)[2:]]
    return plain_table(
        {
            **setting_cells(row, dict.fromkeys(names)),
            "latency (ms)": latency_text(row),
            "images/s": number(row["images_per_s"]),
            "status": row["status"] + (f": {row['reason']}" if row["reason"] else ""),
        }
        for _, row in frame.sort_values(ORDER).iterrows()
    )


def ok_tables(ok: pd.DataFrame) -> list[str]:
    """The cases that are ok, a table per lowering (and run)."""
    if ok.empty:
        return []
    parts, names = ["## Measurements", *constants(ok)], varying(ok)
    groups: list[tuple[Any, pd.DataFrame]] = list(ok.sort_values(ORDER).groupby(["run", "lowering"]))
    for (run, lowering), rows in sorted(groups, key=lambda group: (group[0][0], lowering_order(group[0][1]))):
        times = " and ".join(rows["time"].unique())
        parts.append(f"### {lowering}" + (f", run {run}" if ok["run"].nunique() > 1 else ""))
        parts.append(f"Latency is `{times}`, with its 95 % interval.")
        parts.append(table(ok_cells(row, names) for _, row in rows.iterrows()))
    return parts


def ok_cells(row: pd.Series, names: Iterable[str]) -> dict[str, str]:
    """One measured case, in the units people read."""
    at_least = "" if pd.isna(row["counts_exact"]) or row["counts_exact"] else "≥ "
    return {
        **setting_cells(row, names),
        "latency (ms)": latency_text(row),
        "launches": number(row["launches"]),
        "images/s": number(row["images_per_s"]),
        "over anchor": number(row["anchor_ratio"]),
        "GFLOPs": at_least + number(row["flops"], BILLION) if not pd.isna(row["flops"]) else "",
        "peak (MiB)": number(row["allocator_peak_bytes"], MEBIBYTE),
        "relative error": "" if pd.isna(row["relative_error"]) else f"{row['relative_error']:.1e}",
    }


def latency_text(row: pd.Series) -> str:
    """ "1.21 [1.19, 1.23]"."""
    bounds = "" if pd.isna(row["latency_low_ms"]) else " [{}, {}]"
    return number(row["latency_ms"]) + bounds.format(number(row["latency_low_ms"]), number(row["latency_high_ms"]))


def setting_cells(row: pd.Series, names: Iterable[str]) -> dict[str, str]:
    return {name: "" if pd.isna(row[name]) else str(row[name]) for name in names}


def varying(rows: pd.DataFrame) -> list[str]:
    """The settings that a table needs a column for."""
    names = ("model", "lowering", "dtype", "batch", "resolution", "window", "channels", *RARELY_VARIED)
    return [name for name in names if name not in RARELY_VARIED or rows[name].nunique() > 1]


def constants(rows: pd.DataFrame) -> list[str]:
    """What `varying` leaves out, said once."""
    same = [rows[name].iloc[0] for name in RARELY_VARIED if rows[name].nunique() == 1]
    return [f"All of these: {', '.join(same)}."] if same else []


def failed_table(failed: pd.DataFrame) -> list[str]:
    """Every case that is not ok, with its reason."""
    if failed.empty:
        return []
    rows = failed.sort_values(["status", *ORDER])
    several, names = failed["run"].nunique() > 1, varying(failed)
    cells = (
        {
            **({"run": row["run"]} if several else {}),
            **setting_cells(row, names),
            "status": row["status"],
            "reason": row["reason"] or "none was recorded",
        }
        for _, row in rows.iterrows()
    )
    return ["## Cases that are not ok", "They are in no ranking, ratio or curve.", *constants(failed), table(cells)]


def method(frame: pd.DataFrame, environments: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """How it was measured, for a reader who wants to judge the numbers."""
    ok = frame[(frame["status"] == "ok") & frame["latency_ms"].notna()]
    launches = ", ".join(str(count) for count in sorted(ok["launches"].unique()))
    items = [f"Launches (processes) per case: {launches}."] if launches else []
    for name, words in INTERVALS.items():
        if count := int((ok["interval"] == name).sum()):
            items.append(f"Interval of {count} of the {len(ok)} ok cases: {words}.")
    if count := int(ok["interval"].isna().sum()):
        items.append(f"{count} cases have no interval: one launch with too few samples.")
    items.append(METHOD)
    items += [
        "A multiply-accumulate is 2 FLOPs; counts are of one forward, batch included.",
        f"`{ANCHOR}` is a fixed mix of work, timed under the same lowering, device and dtype.",
    ]
    if inexact := uncounted(frame):
        items.append(f"Counts marked ≥ are at least that, since these operations are not counted: {inexact}.")
    settings = {run: manifest.get("measure") or {} for run, manifest in environments.items()}
    listed = "\n".join(f"- {item}" for item in items)
    return ["## How it was measured", listed, *side_by_side({"measure": settings})]


def uncounted(frame: pd.DataFrame) -> str:
    names = {name for names in frame["uncounted_ops"].dropna() for name in names.split(", ") if name}
    return ", ".join(f"`{name}`" for name in sorted(names))


def environment_table(environments: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Where it was measured, a column per run; lines in which runs differ are marked."""
    sides = {part: {run: m.get(part) or {} for run, m in environments.items()} for part in ("environment", "versions")}
    return ["## Environment", *(side_by_side(sides) or ["None was recorded."])]


def side_by_side(parts: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """part -> run -> settings, as one table with a line a setting and a column a run; nothing when it is empty."""
    rows = compared(parts)
    return [table(rows)] if rows else []


def compared(parts: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[dict[str, str]]:
    """The lines of that table; the setting's name ends in DIFFERS where runs do."""
    rows = []
    for part, by_run in parts.items():
        flat = {run: dict(_flatten(part, settings)) for run, settings in by_run.items()}
        for name in dict.fromkeys(name for settings in flat.values() for name in settings):
            values = {run: settings.get(name, "") for run, settings in flat.items()}
            mark = DIFFERS if len(set(values.values())) > 1 else ""
            rows.append({"setting": name + mark, **values})
    return rows


def _flatten(prefix: str, value: Any) -> Iterable[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flatten(f"{prefix}.{name}", inner)
    else:
        missing = "not set" if prefix.startswith("measure.") else "unknown"
        yield prefix, missing if value is None else str(value)
