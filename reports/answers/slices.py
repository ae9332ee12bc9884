"""Which cases share a figure: along one axis, every other setting is fixed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mixprof.data.case import STEP

FIXED = ("device", "dtype", "layout", "mode", "step", "channels", "resolution", "batch", "window")
STEPS = (STEP, "forward", "backward", "train")
USUAL = {"batch": 1, "window": 7, "channels": 96, "mode": "hot", "step": STEP}


@dataclass(frozen=True)
class Slice:
    """The rows that differ in model, lowering, run and one axis only, and what they have in common."""

    rows: pd.DataFrame
    fixed: dict[str, Any]

    def label(self) -> str:
        """Return the fixed settings in words: "cpu, float32, ..., 56x56, batch 1"."""
        return all_in_words(self.fixed)


def all_in_words(setting: Mapping[Any, Any]) -> str:
    """Settings as people write them; those that are missing are left out, and so is a step of inference."""
    return ", ".join(
        in_words(name, value)
        for name, value in setting.items()
        if not pd.isna(value) and (name, value) != ("step", STEP)
    )


def step_column(rows: pd.DataFrame) -> list[str]:
    """["step"] for a table of these rows where any is of another step than inference, else nothing."""
    return ["step"] if (rows["step"] != STEP).any() else []


def in_words(name: str, value: Any) -> str:
    """One setting as people write it."""
    if name == "resolution":
        return str(value) if "x" in str(value) else f"{value}x{value}"
    if name == "step":
        return {"train": "training step", STEP: STEP}.get(value, f"{value} in training")
    return {"batch": f"batch {value}", "window": f"window {value}", "channels": f"{value} channels"}.get(
        name, str(value)
    )


def lowering_order(lowering: str) -> tuple[bool, str]:
    """A sort key: eager, against which others are held, first, then by name."""
    return lowering.split(":")[0] != "eager", lowering


def ranked_slices(frame: pd.DataFrame, axis: str) -> list[Slice]:
    """Every slice along `axis` with at least two places on it, the one to draw first.

    That is the one with the most cases; where several have as many, one of which at least half is ok, then the one
    nearest to the usual settings, then the one with the most that is ok.
    """
    return sorted((s for s in _slices(frame, axis) if s.rows[axis].nunique() >= 2), key=_merit, reverse=True)


def settings(frame: pd.DataFrame) -> list[Slice]:
    """The rows of one setting, models and lowerings aside, for every setting there is; in the same order."""
    return sorted(_slices(frame, ""), key=_merit, reverse=True)


def by_step(frame: pd.DataFrame) -> Iterator[tuple[str, str, str, pd.DataFrame]]:
    """Yield kind of model, what goes behind a file's name and behind a title, and rows, for each kind and step.

    Nothing goes behind those of inference, which come first.
    """
    for kind, rows in frame.groupby("kind"):
        for step in sorted(rows["step"].unique(), key=step_order):
            named = ("", "") if step == STEP else (f"_{step}", f", {in_words('step', step)}")
            yield str(kind), *named, rows[rows["step"] == step]


def step_order(step: str) -> int:
    """A sort key: inference first, then as a training step goes."""
    return STEPS.index(step)


def _merit(candidate: Slice) -> tuple[float, ...]:
    good = (candidate.rows["status"] == "ok").sum()
    fixed = candidate.fixed
    usual = sum(fixed.get(name) == value for name, value in USUAL.items())
    usual += fixed.get("resolution") == ("56" if fixed["channels"] else "224")
    return len(candidate.rows), bool(2 * good >= len(candidate.rows)), usual, good


def _slices(frame: pd.DataFrame, axis: str) -> Iterator[Slice]:
    """Every slice. A model without a window belongs to the slices of all windows, save along the window itself."""
    grouped = [name for name in FIXED if name not in (axis, "window")]
    values: Any
    for values, rows in frame.groupby(grouped, dropna=False):
        fixed = {name: None if pd.isna(value) else value for name, value in zip(grouped, values, strict=True)}
        if axis == "window":
            yield Slice(rows[rows["window"].notna()], fixed)
            continue
        windows = sorted(rows["window"].dropna().unique())
        for window in windows or [None]:
            yield Slice(rows[rows["window"].isna() | rows["window"].isin([window])], {**fixed, "window": window})


def places(rows: pd.DataFrame, axis: str) -> np.ndarray:
    """Where rows stand along an axis: batch, window, or the side of a resolution (of the square of equal area)."""
    if axis == "resolution":
        area = rows["height"].astype(float) * rows["width"].astype(float)
        return np.sqrt(area.to_numpy())
    return rows[axis].astype(float).to_numpy()


def alike(frame: pd.DataFrame, names: list[str]) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Each combination of these columns' values, missing ones as None, and the positions of the rows that have it."""
    if frame.empty:
        return
    numbers = frame.groupby(names, dropna=False, sort=False).ngroup().to_numpy()
    order = np.argsort(numbers, kind="stable")
    columns = {name: frame[name].to_numpy(dtype=object) for name in names}
    for rows in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
        yield {name: None if pd.isna(values[rows[0]]) else values[rows[0]] for name, values in columns.items()}, rows
