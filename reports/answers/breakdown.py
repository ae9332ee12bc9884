"""Where an eager forward's time, multiply-accumulates and bytes go: by role, stage by stage."""

import json

import pandas as pd

from mixprof.data.case import ANCHORS

SETTING = ["run", "model", "lowering", "device", "dtype", "step", "batch", "resolution", "window", "channels"]
AMOUNTS = {"ms": "time", "macs": "MACs", "bytes": "bytes moved"}


def breakdown(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per case, stage and role, for the cases that were broken down (`mixprof sweep --layers`, eager).

    SETTING, `stage` (missing outside of stages), `role`, `ms`, `macs`, `bytes`, `kernels`.
    """
    known = frame[frame["breakdown"].notna() & ~frame["model"].isin(ANCHORS)]
    rows = [
        {**{name: row[name] for name in SETTING}, **part}
        for row in known[[*SETTING, "breakdown"]].to_dict("records")
        for part in json.loads(row["breakdown"])
    ]
    return pd.DataFrame(rows, columns=[*SETTING, "stage", "role", "ms", "macs", "bytes", "kernels"])
