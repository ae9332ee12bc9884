"""Random modules through every lowering of PyTorch and onnxruntime: right, or refused with a reason. Never crashed.

MIXPROF_FUZZ says how many of the 200 are compiled and exported, each of which takes seconds; 200 take an hour.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import random_modules

ROOT = Path(__file__).parents[1]
SLOW = int(os.environ.get("MIXPROF_FUZZ", "16"))
COUNTS = {"eager": random_modules.COUNT, "onnxruntime": SLOW, "compile": SLOW}
REFUSES = {"onnxruntime"}  # what has no ONNX form is `unsupported`, and says why


@pytest.mark.slow
@pytest.mark.parametrize("lowering", COUNTS)
def test_no_random_module_crashes_or_is_wrong(lowering, tmp_path):
    seeds = [f"random_modules:build:seed={number}" for number in range(COUNTS[lowering])]
    side = str(random_modules.SIDE)
    command = [
        sys.executable, "-m", "mixprof", "sweep", "--models", ",".join(seeds), "--lowerings", lowering, "--devices",
        "cpu", "--batches", str(random_modules.BATCH), "--resolutions", side, "--quick", "--seconds", "0.02",
        "--max-lost-cpu", "1", "--threads", "1", "--out", str(tmp_path / "run"),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT / 'tests'}"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (tmp_path / "run" / "records.jsonl").exists(), done.stderr
    lines = (tmp_path / "run" / "records.jsonl").read_text().splitlines()
    records = {record["case"]["model"]: record for record in map(json.loads, lines)}
    assert set(seeds) <= set(records)
    allowed = {"ok", "unstable", *(["unsupported"] if lowering in REFUSES else [])}
    bad = {model: (record["status"], record["reason"]) for model, record in records.items()
           if record["status"] not in allowed}  # fmt: skip
    assert not bad
    refused = [record for record in records.values() if record["status"] == "unsupported"]
    assert all(record["reason"] for record in refused)
    assert len(refused) <= len(records) // 4
