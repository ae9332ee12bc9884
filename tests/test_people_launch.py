"""Every kind of model that people bring, launched: built, checked and timed, or refused as expected."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from people import DTYPES, KINDS, Kind

# A third of the kinds, in float32: with all of everything as tests/test_random_lowerings.py has it, in every dtype.
FULL = os.environ.get("MIXPROF_FUZZ") == "200"
LAUNCHED_IN = DTYPES if FULL else ("float32",)

HERE = Path(__file__).parent
LAUNCHED = [kind for kind in KINDS if not kind.options and kind.batch][:: 1 if FULL else 3]
pytestmark = pytest.mark.slow


def group(kind: Kind) -> str:
    return (
        f'[[group]]\nmodels = ["{kind.model}"]\ndtypes = {json.dumps(LAUNCHED_IN)}\n'
        f"batches = [{kind.batch}]\nresolutions = [{kind.side}]\n"
    )


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> dict[tuple[str, str], dict]:
    """Records by model and dtype, of one sweep."""
    folder = tmp_path_factory.mktemp("people")
    measure = "[measure]\nseconds = 0.02\nmax_lost_cpu = 1.0\nthreads = 1\ntimeout = 120\n"
    (folder / "people.toml").write_text(measure + "".join(map(group, LAUNCHED)))
    command = [sys.executable, "-m", "mixprof", "sweep", str(folder / "people.toml"), "--quick", "--devices", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent / "src")}
    done = subprocess.run([*command, "--out", str(folder / "run")], cwd=HERE, env=environment, capture_output=True,
                          text=True)  # fmt: skip
    assert (folder / "run" / "records.jsonl").exists(), done.stderr
    lines = (folder / "run" / "records.jsonl").read_text().splitlines()
    return {(record["case"]["model"], record["case"]["dtype"]): record for record in map(json.loads, lines)}


@pytest.mark.parametrize("dtype", LAUNCHED_IN)
@pytest.mark.parametrize("kind", LAUNCHED, ids=lambda kind: kind.model)
def test_a_kind_ends_as_it_should(records, kind, dtype):
    record = records[kind.model, dtype]
    status = "ok" if record["status"] == "unstable" else record["status"]  # how busy the machine was, no more
    assert status in kind.statuses(dtype), (record["reason"], record["relative_error"])
    if status == "unsupported":
        assert record["reason"]
    if kind.random:
        assert (status, record["relative_error"]) == ("ok", None)
