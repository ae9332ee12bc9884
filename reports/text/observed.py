"""What ran in each case and what its GPU did meanwhile: two tables of a report."""

import json
from typing import Any

import pandas as pd

from mixprof.reports import observed
from mixprof.reports.answers import Answers
from mixprof.reports.frame import ANCHORS
from mixprof.reports.text.markdown import ORDER, Section, Table, number, section, words

SETTING = ["lowering", "device", "dtype", "layout", "mode", "step", "model"]
SETTING += ["batch", "resolution", "window", "channels"]
MEBIBYTE = 2**20
RAN_NOTE = (
    "From one forward under torch.profiler after all timing: kernels of a GPU, of a CPU operators. Words follow from "
    "their names; what no name tells is left out. Shares are of that forward's time."
)
SENSORS_NOTE = (
    "Memory is torch's of the whole process: allocated at most, reserved from the device, of that in pools of CUDA "
    "graphs. Clocks, temperature and power are NVML's while samples were taken."
)


def what_ran(answers: Answers) -> list[Section]:
    """The section with the kernels of each case that was profiled."""
    rows = _of(answers, ["ran_launches"])
    return _section("What ran", RAN_NOTE, rows, answers.several_runs, _ran)


def what_the_gpu_did(answers: Answers) -> list[Section]:
    """The section with memory, clocks and energy of each case on a GPU."""
    rows = _of(answers, [*observed.CUDA_MEMORY, *observed.SENSORS])
    return _section("What the GPU did", SENSORS_NOTE, rows, answers.several_runs, _sensors)


def _of(answers: Answers, columns: list[str]) -> pd.DataFrame:
    cases = answers.cases
    return cases[cases[columns].notna().any(axis=1) & ~cases["model"].isin(ANCHORS)].sort_values(ORDER)


def _section(heading: str, note: str, rows: pd.DataFrame, several_runs: bool, cells: Any) -> list[Section]:
    names = [*["run"] * several_runs, *(name for name in SETTING if name == "model" or rows[name].nunique() > 1)]
    lines = tuple({**{name: words(row[name]) for name in names}, **cells(row)} for _, row in rows.iterrows())
    return section(heading, note, Table(lines)) if lines else []


def _ran(row: pd.Series) -> dict[str, str]:
    roles = json.loads(row["role_shares"]) if pd.notna(row["role_shares"]) else {}
    return {
        "formulation": words(row["formulation"]),
        **{name: words(row[f"{name}_kernel"]) for name in ("attention", "convolution", "product")},
        "TF32": "" if pd.isna(row["ran_tf32"]) else "yes" if row["ran_tf32"] else "no",
        "launches": number(row["ran_launches"]),
        "layout copies": f"{row['transposes_share']:.0%}",
        "longest": f"{row['longest_kernel']} ({row['longest_kernel_share']:.0%})",
        "by role": ", ".join(f"{role} {share:.0%}" for role, share in roles.items() if share >= 0.01),
    }


def _sensors(row: pd.Series) -> dict[str, str]:
    memory = {name: row[f"cuda_{name}_bytes"] for name in ("allocated", "reserved", "graph_pool")}
    spread = f" ({number(row['sm_clock_low_mhz'])} to {number(row['sm_clock_high_mhz'])})"
    return {
        **{f"{name.replace('_', ' ')} (MiB)": number(value, MEBIBYTE) for name, value in memory.items()},
        "J/image": number(row["joules_per_image"]),
        "SM clock (MHz)": number(row["sm_clock_mhz"]) + spread * bool(pd.notna(row["sm_clock_mhz"])),
        "power-capped": "" if pd.isna(row["power_capped_share"]) else f"{row['power_capped_share']:.0%}",
        "at most (°C)": number(row["temperature_c"]),
        "at most (W)": number(row["power_w"]),
        "by energy (W)": number(row["energy_w"]),
    }
