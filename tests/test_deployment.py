"""Deployment figures: a process that only deploys an artifact, and the table with a row an engine."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from mixprof.data.launch import Launch, Samples
from mixprof.data.record import Record
from mixprof.lowerings import Target, onnxruntime
from mixprof.lowerings.cold import order
from mixprof.metrics import Subject, deployment
from mixprof.reports.answers import answers
from mixprof.reports.frame import load
from mixprof.reports.text.deployment import what_each_gives
from synthetic_runs import case, ok, write_run

MODEL = "dwnet_t"


def engine(lowering, medians, colds=(), artifact_bytes=None, **changes):
    """A record whose launches have these medians in milliseconds, and these cold starts in seconds."""
    record = ok(case(MODEL, lowering=lowering, channels=None, resolution=(64, 64), **changes), medians)
    parts = [deployment.Deployment(start, start / 2, start / 4, 1.0, 2**20) for start in colds]
    deployed = [*parts, *[None] * (len(medians) - len(colds))]
    launches = [replace(one, deployment=given) for one, given in zip(record.launches, deployed, strict=True)]
    return replace(record, launches=tuple(launches), artifact_bytes=artifact_bytes)


def table(folder, *records):
    found = answers(load(write_run(folder / "run", records)))
    return found, {row["lowering"]: row for _, row in found.engines.iterrows()}


def test_the_best_is_marked_where_all_launches_agree(tmp_path):
    found, rows = table(
        tmp_path,
        engine("eager", (10.0, 10.1, 9.9)),
        engine("onnxruntime", (5.0, 5.02, 4.99), (0.2, 0.21, 0.19), 1000),
        engine("openvino", (4.0, 4.02, 3.99), (0.5, 0.51, 0.49), 2000),
    )
    assert list(rows) == ["eager", "onnxruntime", "openvino"]
    assert [bool(row["best_latency"]) for row in rows.values()] == [False, False, True]
    assert [bool(row["best_cold_start"]) for row in rows.values()] == [False, True, False]
    assert [bool(row["best_bytes"]) for row in rows.values()] == [False, True, False]
    assert rows["onnxruntime"]["cold_start_s"] == 0.2
    text = what_each_gives(found)[0].markdown()
    assert re.findall(r"(\d[\d.]*) \[[^]]*\] ✓", text) == ["4.003"]  # the mean of the logarithms
    assert "0.2 ✓" in text


def test_nothing_is_marked_that_is_not_decided(tmp_path):
    _, rows = table(
        tmp_path,
        engine("onnxruntime", (5.0, 5.5, 4.6), (0.2, 0.6, 0.19), 1000),
        engine("openvino", (4.9, 4.5, 5.4), (0.5, 0.51, 0.49), 1000),
    )
    for row in rows.values():
        assert not any(row[name] for name in ("best_latency", "best_cold_start", "best_bytes"))


def test_what_an_int8_engine_runs_in_float_is_said(tmp_path):
    proof = {"integer_products": {"QLinearMatMul": 2, "QLinearConv": 1}, "float_products": ["node_conv2d_2"]}
    quantized = replace(engine("openvino", (4.0, 4.1), (), 2, dtype="int8"), proof={**proof, "sqnr_db": 31.25})
    found, _ = table(tmp_path, engine("onnxruntime", (5.0, 5.1), (), 1), quantized)
    (line,) = [line for line in what_each_gives(found)[0].markdown().splitlines() if "int8" in line]
    assert "| 3 of 4 |" in line
    assert "| 31.25 |" in line


def test_one_launch_decides_no_cold_start(tmp_path):
    _, rows = table(tmp_path, engine("onnxruntime", (5.0,), (0.2,), 1), engine("openvino", (4.0,), (0.5,), 2))
    assert not any(row["best_cold_start"] for row in rows.values())


def test_an_engine_alone_and_modules_alone_have_no_table(tmp_path):
    assert table(tmp_path / "a", engine("onnxruntime", (5.0, 5.1), (), 1))[0].engines.empty
    found, _ = table(tmp_path / "b", engine("eager", (5.0, 5.1)), engine("compile", (4.0, 4.1)))
    assert what_each_gives(found) == []


def test_records_of_before_have_no_such_figures():
    record = Record(case(), "ok", launches=(Launch("ok", host_ms=Samples((1.0,), 1)),))
    fields = record.to_json()
    del fields["deployment"], fields["launches"][0]["deployment"]
    assert Record.from_json(fields) == record


@pytest.fixture(scope="module")
def lowered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cold")
    module, x = nn.Linear(8, 4).requires_grad_(False), torch.randn(2, 8)
    return onnxruntime.lower(module, (x,), Target("cpu", "float32", "contiguous", {}, 1, folder, False, "key"))


def test_a_process_deploys_the_artifact_and_its_parts_are_within_the_whole(lowered):
    taken = deployment.measure(Subject(case(), lowered, None, 1.0))
    assert taken is not None
    assert taken.reason is None
    values = [taken.import_s, taken.load_s, taken.first_ms, taken.cold_start_s, taken.peak_bytes]
    import_s, load_s, first_ms, whole_s, peak_bytes = (value for value in values if value is not None)
    assert 0 < import_s + load_s + first_ms / 1e3 < whole_s
    assert 2**20 < peak_bytes < 2**30


def test_the_deploying_process_imports_no_torch_for_an_engine_without_it(lowered):
    code = (
        "import sys, json, io; from mixprof.lowerings import cold\n"
        "cold.main(); assert 'torch' not in sys.modules and 'onnxruntime' in sys.modules"
    )
    fed = json.dumps({**lowered.cold.__dict__, "inputs": [one.__dict__ for one in lowered.cold.inputs]})
    subprocess.run([sys.executable, "-c", code], input=fed, text=True, check=True, capture_output=True)


def test_what_cannot_be_loaded_is_a_reason_and_no_figure(lowered, tmp_path):
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    broken = order("onnxruntime", tmp_path / "junk.onnx", [torch.zeros(2, 8)], 1, {})
    taken = deployment.measure(Subject(case(), replace(lowered, cold=broken), None, 1.0))
    assert taken is not None
    assert taken.cold_start_s is None
    assert "junk.onnx" in (taken.reason or "")


def test_a_module_has_no_artifact_to_deploy(lowered):
    assert deployment.measure(Subject(case(), replace(lowered, cold=None), None, 1.0)) is None
