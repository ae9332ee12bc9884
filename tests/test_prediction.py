"""Predictions by roofline against ones made by hand, and the data sheets' table."""

import json

import pytest

from mixprof.data import toml
from mixprof.plan import prediction
from mixprof.plan.prediction import Efficiency, Hardware
from test_cli import mixprof

HERE = Hardware("here", 100.0, 10.0, 50.0, 0.5, cached_bytes_per_s=200.0, cache_bytes=40)


def operator(kind, flops, read, written):
    sizes = {"read_bytes": read, "written_bytes": written, "weight_bytes": 0}
    return {"name": "aten.mm", "kind": kind, "flops": flops, **sizes}


@pytest.mark.parametrize(
    ("one", "seconds"),
    [
        (operator("matrix", 1000, 60, 40), 10.0),  # 1000 / 100 against 100 / 50
        (operator("vector", 1000, 60, 40), 100.0),
        (operator("matrix", 100, 60, 40), 2.0),  # memory is slower
        (operator("move", 0, 60, 40), 2.0),
        (operator("move", 0, 20, 20), 0.2),  # fits the cache
    ],
)
def test_an_operator_takes_the_longer_of_arithmetic_and_memory_and_its_overhead(one, seconds):
    assert prediction.operator_s(one, HERE) == pytest.approx(seconds + 0.5)
    assert prediction.latency_s([one, one], HERE) == pytest.approx(2 * seconds + 1.0)
    half = Efficiency(0.5, 0.5, 0.5, 2.0)
    overhead = 1.0 if one["flops"] else 0.5
    assert prediction.operator_s(one, HERE, half) == pytest.approx(2 * seconds + overhead)


def test_weights_that_do_not_fit_the_cache_together_come_from_memory():
    one = {**operator("move", 0, 30, 5), "weight_bytes": 25}  # 10 bytes near at 200, 25 far at 50
    assert prediction.latency_s([one], HERE) == pytest.approx(35 / 200 + 0.5)
    assert prediction.latency_s([one, one], HERE) == pytest.approx(2 * (10 / 200 + 25 / 50 + 0.5))


def test_every_data_sheet_is_whole_and_names_its_source():
    table = toml.decode(prediction.TABLE.read_text())
    for name, row in table.items():
        assert row["source"], name
        assert row["url"].startswith("https://"), name
        assert row["matrix"].keys() == row["vector"].keys()
        for dtype in row["matrix"]:
            found = prediction.on(name, dtype)
            assert found.matrix_flops_per_s >= found.vector_flops_per_s > found.bytes_per_s > 0
        assert row["matrix"]["float32"] == row["vector"]["float32"]  # TF32 is a dtype of its own


def test_a_plan_predicts_for_a_gpu_that_is_not_here():
    axes = ("--models", "pointwise_conv", "--resolutions", "56", "--batches", "64", "--dtypes", "float16,float32")
    done = mixprof("plan", *axes, "--lowerings", "eager,onnxruntime", "--on", "V100", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["predicted_on"]["device"], found["predicted_on"]["measured"]) == ("NVIDIA V100 SXM2", False)
    rows = {
        (row["case"]["lowering"], row["case"]["dtype"]): row
        for row in found["cases"]
        if row["case"]["model"] == "pointwise_conv"
    }
    values, weights = 64 * 56**2 * 96, 96**2 + 96
    for dtype, size, peak in (("float16", 2, 125e12), ("float32", 4, 15.7e12)):
        arithmetic, memory = 2 * values * 96 / peak, size * (2 * values + weights) / 900e9
        row = rows["eager", dtype]["prediction"]
        assert row["latency_ms"] == pytest.approx(1000 * (max(arithmetic, memory) + 3e-6))
        assert (row["kernels"], row["memory_bound_share"]) == (1, float(memory > arithmetic))
    assert rows["onnxruntime", "float32"]["prediction"]["latency_ms"] is None
    assert "fuses" in rows["onnxruntime", "float32"]["prediction"]["reason"]


def test_the_text_says_that_it_is_a_prediction():
    done = mixprof("plan", "--models", "depthwise_conv", "--on", "Orin")
    assert done.returncode == 0, done.stderr
    assert "Predicted for NVIDIA Jetson AGX Orin 64 GB from its data sheet, not measured" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--on", "V10"), "V100"), (("--on", "V100", "--dtypes", "bfloat16"), "float32, float16")],
)
def test_a_device_or_dtype_that_no_data_sheet_has_is_one_line(arguments, said):
    done = mixprof("plan", "--models", "depthwise_conv", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
