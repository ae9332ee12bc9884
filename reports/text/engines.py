"""Proof of lowering: what each engine holds, what each compiled graph broke into, where time goes by role."""

from collections.abc import Callable

import pandas as pd

from mixprof.reports.answers import Answers
from mixprof.reports.answers.breakdown import SETTING
from mixprof.reports.answers.slices import in_words, step_column
from mixprof.reports.frame import ROLES
from mixprof.reports.text.markdown import ORDER, Part, Section, Table, bullets, number, of_floor, section, words

MEBIBYTE = 2**20
ENGINES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}  # two names, never one
SIZES = ("intermediate", "activation", "scratch", "engine_weights", "engine")
SETTINGS = ("dtype", "model", "batch", "resolution", "window", "channels")
ENGINES_NOTE = (
    "Precision is that of the products' operands and results. Intermediates are what kernels write for other "
    "kernels. The graph's error is that of the exported graph in onnxruntime on the CPU, where its engine could "
    "not be run; refused where onnxruntime does not take it either."
)
PROFILER_NOTE = (
    "From TensorRT's profiler, in a launch of its own: it slows an engine, so the sum is more than its latency."
)
BREAKDOWN_NOTE = (
    "Measured operator by operator in a launch of its own, each waited for, so the sum is more than the latency. "
    "Reshape is window partition, shift, padding and other copies inside a mixer, generator the making of dynamic "
    "kernels, other mostly residual additions. MACs are those that really run, bytes what operators read and write; "
    "in brackets, how near a part is to its floor, the longer of its arithmetic and of these bytes."
)


def built_only(frame: pd.DataFrame) -> pd.Series:
    """Which rows have an engine that was not run: true or false for each."""
    return frame["flavour"].isin(ENGINES) & (frame["status"] == "built")


def built(answers: Answers) -> list[Section]:
    """The section with why engines were built and not run, each reason once."""
    rows = answers.cases[built_only(answers.cases)]
    if rows.empty:
        return []
    reasons = rows["reason"].fillna("no reason was recorded").value_counts()
    listed = bullets(f"{count} cases: {reason}." for reason, count in reasons.items())
    return section("Built and not run", "Their engines are in the table under Proof of lowering.", listed)


def proof_of_lowering(answers: Answers) -> list[Section]:
    """The section with a row per engine, per engine whose layers were timed, and per compiled case."""
    frame = answers.cases
    engines = frame[frame["flavour"].isin(ENGINES)]
    timed = engines[engines[[f"role_{role}_ms" for role in ROLES]].notna().any(axis=1)]
    compiled = frame[frame["lowering"].str.startswith("compile") & frame["graph_breaks"].notna()]
    parts: list[Part] = []
    for heading, note, rows, cells in (
        ("Engines", ENGINES_NOTE, engines, _engine),
        ("Where an engine's time goes", PROFILER_NOTE, timed, _roles),
        ("Compiled graphs", "", compiled, _compiled),
    ):
        if len(rows):
            parts += [f"### {heading}", *filter(None, [note]), _table(rows, answers.several_runs, cells)]
    return section("Proof of lowering", *parts)


def _table(rows: pd.DataFrame, several_runs: bool, cells: Callable[[pd.Series], dict[str, str]]) -> Table:
    names = ["lowering", *["run"] * several_runs, *step_column(rows), *SETTINGS]
    ordered = rows.sort_values(ORDER)
    lines = (
        {**{name: words(row[name]) for name in names}, **cells(row), "of floor": of_floor(row["attainable_share"])}
        for _, row in ordered.iterrows()
    )
    return Table(tuple(lines))


def _engine(row: pd.Series) -> dict[str, str]:
    refused = "refused" if pd.notna(row["onnx_unchecked"]) else ""
    ratio = "" if pd.isna(row["crosscheck_ratio"]) else f"({row['crosscheck_ratio']:.3f})"
    attentions = 0 if pd.isna(row["attentions"]) else row["attentions"]
    return {
        "flavour": ENGINES[row["flavour"]],
        "version": words(row["tensorrt_version"]),
        "status": row["status"],
        "kernels": number(row["kernels"]),
        "attentions fused": f"{row['fused_attentions']} of {attentions}" if attentions else "",
        "precision": words(row["product_dtypes"]),
        **{f"{name.removeprefix('engine_')} (MiB)": number(row[f"{name}_bytes"], MEBIBYTE) for name in SIZES},
        "build (s)": number(row["engine_build_s"]),
        "from": "" if pd.isna(row["build_cached"]) else "cache" if row["build_cached"] else "built",
        "graph's error": refused if pd.isna(row["onnx_relative_error"]) else f"{row['onnx_relative_error']:.1e}",
        "crosscheck": " ".join(filter(None, [words(row["crosscheck"]), ratio])),
    }


def _roles(row: pd.Series) -> dict[str, str]:
    return {f"{role} (ms)": number(row[f"role_{role}_ms"]) for role in ROLES}


def _compiled(row: pd.Series) -> dict[str, str]:
    return {
        "graph breaks": number(row["graph_breaks"]),
        "recompiles": number(row["recompiles"]),
        "kernels": number(row["kernels"]) or "from the cache",
        "build (s)": number(row["build_s"]),
    }


def breakdown(answers: Answers) -> list[Section]:
    """The section with the milliseconds of each role in each stage of each case."""
    cells = []
    for _, rows in answers.breakdown.groupby([*SETTING, "stage"], dropna=False, sort=False):
        case, by_role = rows.iloc[0], rows.groupby("role")[["ms", "floor_ms"]].sum(min_count=1)
        cells.append({
            "case": ", ".join(in_words(name, case[name]) for name in ("model", "batch", "resolution")),
            "lowering": str(case["lowering"]),
            **{name: str(case[name]) for name in step_column(answers.breakdown)},
            "window": number(case["window"]),
            "stage": number(case["stage"]),
            **{f"{role} (ms)": _part(by_role, role) for role in ROLES},
            "sum (ms)": number(rows["ms"].sum()),
        })  # fmt: skip
    return section("Where the time goes", BREAKDOWN_NOTE, Table(tuple(cells))) if cells else []


def _part(by_role: pd.DataFrame, role: str) -> str:
    """ "0.52 (61%)": a part's milliseconds, and where peaks are known how near they are to the part's floor."""
    if role not in by_role.index:
        return ""
    ms, floor_ms = by_role.loc[role]
    return number(ms) + (f" ({of_floor(floor_ms / ms)})" if ms and not pd.isna(floor_ms) else "")
