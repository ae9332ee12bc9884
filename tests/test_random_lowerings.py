"""Random modules through every lowering of PyTorch and onnxruntime: right, or refused as plain PyTorch does.

MIXPROF_FUZZ says how many are compiled and exported, each of which takes seconds; 200 are all, and take an hour.
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
SLOW = int(os.environ.get("MIXPROF_FUZZ", "3"))
SOME = range(60, 60 + SLOW) if SLOW < 140 else range(random_modules.COUNT)  # of the few, none has an nn.RNN
MANY = range(min(4 * SLOW, random_modules.COUNT))
SEEDS = {"eager": MANY, "onnxruntime": SOME, "compile": SOME}
# torch.onnx unrolls nn.RNN, and 1,536 steps take longer than a launch may. torch.compile itself fails on some layers of
# nn.TransformerEncoder: aten._transformer_encoder_layer_fwd returns other strides than it announces.
REFUSED = {"onnxruntime": {58: "timeout"}, "compile": dict.fromkeys((17, 28, 68, 124, 185), "unsupported")}


def name_of(seed: int) -> str:
    return f"random_modules:build:seed={seed}"


@pytest.mark.slow
@pytest.mark.parametrize("lowering", SEEDS)
def test_no_random_module_crashes_or_is_wrong(lowering, tmp_path):
    seeds = list(map(name_of, SEEDS[lowering]))
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
    known = {name_of(seed): status for seed, status in REFUSED.get(lowering, {}).items()}
    bad = {model: (record["status"], record["reason"]) for model, record in records.items()
           if record["status"] not in ("ok", "unstable", known.get(model))}  # fmt: skip
    assert not bad
