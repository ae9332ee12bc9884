"""Proof of lowering: what each engine holds, what each compiled graph broke into, where an engine's time goes."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from mixprof.reports.frame import ROLES
from mixprof.reports.text.markdown import number, table

MEBIBYTE = 2**20
ENGINES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}  # two names, never one
SIZES = ("intermediate", "activation", "scratch", "engine_weights", "engine")
SETTINGS = ("run", "dtype", "model", "batch", "resolution", "window", "channels")


def proof_of_lowering(frame: pd.DataFrame) -> list[str]:
    """A section with a row per engine, per compiled case, and per engine whose layers were timed."""
    parts = [*engine_table(frame), *role_table(frame), *compiled_table(frame)]
    return ["## Proof of lowering", *parts] if parts else []


def engines_of(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that have an engine, whether or not it was run."""
    return frame[frame["flavour"].isin(ENGINES)]


def built_only(frame: pd.DataFrame) -> pd.Series:
    """Which rows have an engine that was not run: true or false for each."""
    return frame["flavour"].isin(ENGINES) & (frame["status"] == "built")


def engine_table(frame: pd.DataFrame) -> list[str]:
    rows = engines_of(frame)
    if rows.empty:
        return []
    names = _names(frame)
    said = (
        "Precision is that of the products' operands and results. Intermediates are what kernels write for other "
        "kernels. The graph's error is that of the exported graph in onnxruntime on the CPU, where its engine could "
        "not be run; refused where onnxruntime does not take it either."
    )
    return ["### Engines", said, table(_engine(row, names) for _, row in _in_order(rows).iterrows())]


def _engine(row: pd.Series, names: Sequence[str]) -> dict[str, str]:
    sizes = {name: number(row[f"{name}_bytes"], MEBIBYTE) for name in SIZES}
    return {
        "flavour": ENGINES[row["flavour"]],
        "version": _text(row["tensorrt_version"]),
        "lowering": row["lowering"],
        **_setting(row, names),
        "status": row["status"],
        "kernels": number(row["kernels"]),
        "attentions fused": _fused(row),
        "precision": _text(row["product_dtypes"]),
        **{f"{name.removeprefix('engine_')} (MiB)": size for name, size in sizes.items()},
        "build (s)": number(row["engine_build_s"]),
        "from": "" if pd.isna(row["build_cached"]) else "cache" if row["build_cached"] else "built",
        "graph's error": _graph_error(row),
        "crosscheck": _crosscheck(row),
    }


def _fused(row: pd.Series) -> str:
    if pd.isna(row["attentions"]) or not row["attentions"]:
        return ""
    return f"{row['fused_attentions']} of {row['attentions']}"


def _graph_error(row: pd.Series) -> str:
    if pd.notna(row["onnx_relative_error"]):
        return f"{row['onnx_relative_error']:.1e}"
    return "refused" if pd.notna(row["onnx_unchecked"]) else ""


def _crosscheck(row: pd.Series) -> str:
    if pd.isna(row["crosscheck_ratio"]):
        return _text(row["crosscheck"])
    return f"{row['crosscheck']} ({row['crosscheck_ratio']:.3f})"


def role_table(frame: pd.DataFrame) -> list[str]:
    """Milliseconds of each role, where a sweep was asked for its engines' layers."""
    rows = engines_of(frame)
    rows = rows[rows[[f"role_{role}_ms" for role in ROLES]].notna().any(axis=1)]
    if rows.empty:
        return []
    names = _names(frame)
    cells = (
        {
            "lowering": row["lowering"],
            **_setting(row, names),
            **{f"{role} (ms)": number(row[f"role_{role}_ms"]) for role in ROLES},
        }
        for _, row in _in_order(rows).iterrows()
    )
    said = "From TensorRT's profiler, in a launch of its own: it slows an engine, so the sum is more than its latency."
    return ["### Where an engine's time goes", said, table(cells)]


def compiled_table(frame: pd.DataFrame) -> list[str]:
    """What torch.compile made of each case."""
    rows = frame[frame["lowering"].str.startswith("compile") & frame["graph_breaks"].notna()]
    if rows.empty:
        return []
    names = _names(frame)
    cells = (
        {
            "lowering": row["lowering"],
            **_setting(row, names),
            "graph breaks": number(row["graph_breaks"]),
            "recompiles": number(row["recompiles"]),
            "kernels": number(row["kernels"]) or "from the cache",
            "build (s)": number(row["build_s"]),
        }
        for _, row in _in_order(rows).iterrows()
    )
    return ["### Compiled graphs", table(cells)]


def built_in_words(frame: pd.DataFrame) -> list[str]:
    """Why engines were built and not run, each reason once: their rows are in the table of engines."""
    rows = frame[built_only(frame)]
    if rows.empty:
        return []
    reasons = rows["reason"].fillna("no reason was recorded").value_counts()
    listed = "\n".join(f"- {count} cases: {reason}." for reason, count in reasons.items())
    return ["## Built and not run", f"Their engines are in the table under Proof of lowering.\n\n{listed}"]


def _in_order(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.sort_values(["run", "lowering", "dtype", "model", "height", "width", "batch", "window", "channels"])


def _names(frame: pd.DataFrame) -> Sequence[str]:
    return SETTINGS if frame["run"].nunique() > 1 else SETTINGS[1:]


def _setting(row: pd.Series, names: Sequence[str]) -> dict[str, str]:
    return {name: _text(row[name]) for name in names}


def _text(value: object) -> str:
    return "" if pd.isna(value) else str(value)  # type: ignore[call-overload]
