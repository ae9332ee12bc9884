"""Training steps as cases: the axis --steps, what cannot be, and real processes that time steps and their parts."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mixprof import lowerings
from mixprof.data import run_folder
from mixprof.data.case import Case
from mixprof.lowerings import steps
from mixprof.models.step import PARTS

TESTS = Path(__file__).parent
COMMON = ("--quick", "--threads", "1", "--max-lost-cpu", "1", "--batches", "2")


def mixprof(*arguments):
    env = {**os.environ, "PYTHONPATH": str(TESTS.parent / "src")}
    command = [sys.executable, "-m", "mixprof", *map(str, arguments)]
    return subprocess.run(command, cwd=TESTS, env=env, capture_output=True, text=True, timeout=300)


def why_not(lowering, dtype, step):
    entry, options = lowerings.parse(lowering)
    return steps.why_not(step, dtype, lowering, options, trains=entry.trains)


@pytest.mark.parametrize(
    ("lowering", "dtype", "step", "words"),
    [
        ("onnxruntime", "float32", "train", "takes no gradient: use eager or compile"),
        ("aot", "float32", "backward", "takes no gradient"),
        ("eager", "amp_float16", "inference", "use --steps train, or --dtypes float16"),
        ("eager", "float16", "train", "expected one of float32"),
        ("eager", "int8", "train", "expected one of float32"),
        ("eager:optimizer=sgd", "float32", "inference", "'optimizer' is an option of training"),
        ("eager:graph=on", "float32", "train", "options of inference"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(lowering, dtype, step, words):
    reason = why_not(lowering, dtype, step)
    assert words in reason
    assert "\n" not in reason


@pytest.mark.parametrize("name", ["eager", "eager:optimizer=sgd:checkpoint=stages", "compile:update=compiled"])
@pytest.mark.parametrize("dtype", steps.DTYPES)
def test_what_can_be_has_no_reason(name, dtype):
    assert why_not(name, dtype, "train") is None


def test_a_recipe_is_part_of_a_case_and_of_its_reference():
    case = Case("net", "eager", "cpu", "float32", "contiguous", "hot", 2, (32, 32), None, None, "train")
    sgd = Case(**{**vars(case), "lowering": "eager:optimizer=sgd"})
    compiled = Case(**{**vars(case), "lowering": "compile"})
    assert len({each.key for each in (case, sgd, compiled)}) == 3
    assert case.reference_key == compiled.reference_key != sgd.reference_key
    assert Case.from_json(sgd.to_json()) == sgd
    inference = Case(**{**vars(case), "step": "inference"})
    assert "step" not in inference.to_json()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("depthwise_conv", "--lowerings", "eager:optimizer=rmsprop", "--steps", "train"), "optimizer=adamw"),
        (("call:os:getpid", "--steps", "train"), "a file or a function takes no gradient"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(arguments, words):
    done = mixprof("time", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_steps_are_timed_with_their_parts_and_a_wrong_one_is_not(tmp_path):
    names = ("branching", "wrong_later", "loss_of_nan")
    models = ",".join(f"toys:{name}" for name in names)
    done = mixprof("sweep", "--models", models, "--steps", "train,backward", *COMMON, "--resolutions", "32",
                   "--out", tmp_path / "run")  # fmt: skip
    assert done.returncode == 0, done.stderr
    records: dict[Any, Any] = {(each.case.model.removeprefix("toys:"), each.case.step): each
               for each in run_folder.read_records(tmp_path / "run")}  # fmt: skip
    train, backward = records["branching", "train"], records["branching", "backward"]
    assert (train.status, backward.status) == ("ok", "ok")
    (launch,) = train.launches
    assert tuple(launch.parts) == PARTS
    assert launch.gradient_error < 1e-5
    assert launch.update_error < 1e-2
    assert backward.launches[0].parts is None
    assert "NaN" in records["loss_of_nan", "train"].reason
    wrong = records["wrong_later", "train"]
    assert wrong.status == "inaccurate"
    assert "gradient of conv" in wrong.reason or "loss" in wrong.reason


@pytest.mark.slow
@pytest.mark.long
def test_a_compiled_step_with_mixed_dtypes_is_right(tmp_path):
    done = mixprof("sweep", "--models", "pointwise_conv", "--lowerings", "compile:update=compiled", "--dtypes",
                   "amp_bfloat16", "--steps", "train", *COMMON, "--resolutions", "5", "--channels", "32",
                   "--out", tmp_path / "run")  # fmt: skip
    assert done.returncode == 0, done.stderr
    record: Any
    _, record = run_folder.read_records(tmp_path / "run")
    assert record.status == "ok", record.reason
    assert record.launches[0].proof["graphs"] >= 1
    assert record.launches[0].proof["training"]["update"] == "compiled"
