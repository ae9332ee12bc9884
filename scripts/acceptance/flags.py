"""Flags against a module that sets them for itself, and a case that does not fit the device's memory."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from acceptance.commands import label, sweep
from acceptance.frame import Seen, Value

HOSTILE = '''
import torch
from torch import nn

torch.backends.cuda.matmul.allow_tf32 = True
torch.backends.cudnn.allow_tf32 = True
torch.backends.cudnn.benchmark = False
torch.backends.cudnn.deterministic = True


def mixer(channels):
    return nn.Linear(channels, channels)


class Large(nn.Module):
    """Asks a device for more than any has, the CPU for nothing."""

    def __init__(self, channels):
        super().__init__()
        self.linear = nn.Linear(channels, channels)

    def forward(self, x):
        y = self.linear(x)
        return y + torch.empty(2**44, device=x.device)[:1].to(x.dtype) if x.is_cuda else y


def large(channels):
    return Large(channels)
'''
LIMIT_S = 100.0
EXACT = 1e-5  # of a float32 product of 1,024 terms; TF32 rounds operands to 10 bits and errs by some 3e-4


def _swept(device: str, *axes: str, variables: dict[str, str] | None = None) -> tuple[list[dict[str, Any]], list[str]]:
    with tempfile.TemporaryDirectory(prefix="acceptance-user-") as folder:
        (Path(folder) / "hostile.py").write_text(HOSTILE)
        common = ("--resolutions", "8", "--batches", "2", "--layouts", "contiguous")
        return sweep(device, *axes, *common, limit_s=LIMIT_S, where=Path(folder), variables=variables)


def hostile(device: str) -> Seen:
    """A module that turns TF32 on when it is imported: float32 stays exact, tf32 is what it says."""
    records, wrong = _swept(device, "--models", "hostile:mixer", "--dtypes", "float32,tf32", "--channels", "1024")
    by_dtype = {record["case"]["dtype"]: record for record in records}
    errors = {dtype: record["relative_error"] for dtype, record in by_dtype.items()}
    values: dict[str, Value] = {f"status {dtype}": str(record["status"]) for dtype, record in by_dtype.items()}
    values |= {f"error {dtype}": error for dtype, error in errors.items() if isinstance(error, float)}
    exact, rounded = (errors.get(dtype) for dtype in ("float32", "tf32"))
    if not isinstance(exact, float) or exact > EXACT:
        wrong.append(f"float32 errs by {exact}: TF32 was on, or nothing ran")
    if isinstance(rounded, float) and rounded < EXACT and not device.startswith("sim"):
        wrong.append(f"tf32 errs by {rounded:.2g} only: it was not on")
    return Seen(values, wrong=tuple(wrong), raw={"records": records})


def memory(device: str) -> Seen:
    """A case that does not fit is `oom`, and the next one runs."""
    simulated = device.startswith("sim")
    models = "depthwise_conv" if simulated else "hostile:large,hostile:mixer"
    small = {"MIXPROF_SIM": "memory_mib=0.01"} if simulated else None
    axes = ("--models", models, "--channels", "64", "--dtypes", "float32")
    records, wrong = _swept(device, *axes, variables=small)
    if simulated:  # the device that has memory runs it
        more, worse = _swept(device, *axes)
        records, wrong = records + more, wrong + worse
    statuses = [str(record["status"]) for record in records]
    wrong += [f"statuses are {statuses}, expected oom and ok"] * (sorted(statuses) != ["ok", "oom"])
    values: dict[str, Value] = {"statuses": " ".join(sorted(statuses))}
    return Seen(values, wrong=tuple(wrong), raw={"records": records, "cases": [label(record) for record in records]})
