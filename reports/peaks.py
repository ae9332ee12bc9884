"""How near each case came to what its device can do: the roofline of a run's measured peaks."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from mixprof.data.manifest import Peaks

RATES = ("matrix_flops_per_s", "vector_flops_per_s", "copy_bytes_per_s")
KEYS = ["run", "device", "dtype"]


def table(by_run: Mapping[str, Iterable[Peaks]]) -> pd.DataFrame:
    """A row per run, device and dtype with its three peaks."""
    rows = [
        {"run": run, **{name: getattr(one, name) for name in (*KEYS[1:], *RATES)}}
        for run, peaks in by_run.items()
        for one in peaks
    ]
    table = pd.DataFrame(rows, columns=[*KEYS, *RATES]).drop_duplicates(KEYS)
    return table.astype({**dict.fromkeys(KEYS, "object"), **dict.fromkeys(RATES, "float64")})


def attain(frame: pd.DataFrame, peaks: pd.DataFrame) -> pd.DataFrame:
    """`intensity` (FLOPs per byte), `attainable_ms`, `attainable_share`, `mfu`, `bound` and the peaks for each row.

    attainable: the longer of arithmetic, each kind of MAC at the roof of its unit, and of the least bytes at the rate
    of a copy. mfu: FLOPs over time and the peak of matrix products. bound: "compute" or "memory", whichever is longer.
    Missing where peaks or counts are.
    """
    known = frame[KEYS].merge(peaks, on=KEYS, how="left").set_axis(frame.index)
    macs = frame["macs"].astype(float)
    flops_per_mac = frame["flops"].astype(float) / macs
    arithmetic_s = flops_per_mac * (
        frame["matrix_macs"].astype(float) / known["matrix_flops_per_s"]
        + frame["vector_macs"].astype(float) / known["vector_flops_per_s"]
    )
    memory_s = frame["min_bytes"].astype(float) / known["copy_bytes_per_s"]
    attainable_ms = 1000 * np.maximum(arithmetic_s, memory_s)
    bound = pd.Series(np.where(arithmetic_s > memory_s, "compute", "memory"), index=frame.index, dtype=object)
    return pd.DataFrame(
        {
            "intensity": frame["flops"].astype(float) / frame["min_bytes"].astype(float),
            "attainable_ms": attainable_ms,
            "attainable_share": attainable_ms / frame["latency_ms"],
            "mfu": 1000 * frame["flops"].astype(float) / frame["latency_ms"] / known["matrix_flops_per_s"],
            "bound": bound.where(attainable_ms.notna(), None),
            **{name: known[name] for name in RATES},
        }
    )
