"""People's own files in sweeps: what a case of a file is, the command line, a real engine of TensorRT-RTX."""

import json
import shutil

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from mixprof.data import run_folder
from mixprof.data.errors import Unsupported, UsageError
from mixprof.plan import files
from mixprof.plan.files import Artifact, Input
from onnx_files import SIDES, build, cases, mixprof, source, two

QUICK = ("--quick", "--threads", "1", "--max-lost-cpu", "1")


@pytest.fixture(scope="module")
def free(tmp_path_factory):
    """A file with free batch, height and width, and its module."""
    path = tmp_path_factory.mktemp("free") / "two.onnx"
    return path, two(path)


@pytest.mark.parametrize(
    ("shape", "dtype", "batch", "resolution"),
    [
        ((2, 3, 800, 1333), "float32", 2, (800, 1333)),
        ((2, 224, 200, 3), "uint8", 2, (224, 200)),
        ((4, 14, 14, 96), "float16", 4, (14, 14)),
        ((1, 96, 14, 14), "float16", 1, (14, 14)),
        ((1, 64, 64, 64), "float32", 1, (64, 64)),
        ((3, 197, 384), "float32", 3, (1, 197)),
        ((64, 48, 3), "uint8", 1, (64, 48)),
        ((64, 48, 3), "float32", 64, (1, 48)),
        ((3, 20), "int64", 3, (1, 20)),
        ((5,), "float32", 5, (1, 1)),
        ((), "float32", 1, (1, 1)),
    ],
)
def test_batch_and_resolution_are_those_of_the_first_picture_or_sequence(shape, dtype, batch, resolution):
    made = Artifact("net.onnx", "0", "float32", (Input("x", dtype, shape),), ("onnxruntime",), "onnxruntime")
    assert files.own_sizes(made) == (batch, *resolution)
    assert files.shapes_of(made, batch, resolution) == {"x": shape}


@pytest.mark.parametrize(("name", "batch", "resolution"), [("image", 1, (800, 640)), ("tokens", 3, (1, 800))])
def test_three_channels_of_fixed_sides_are_a_picture_where_the_name_says_so(name, batch, resolution):
    made = Artifact(
        "net.onnx", "0", "float32", (Input(name, "float32", (3, 800, 640)),), ("onnxruntime",), "onnxruntime"
    )
    assert files.own_sizes(made) == (batch, *resolution)


def test_a_picture_leads_wherever_it_stands_and_free_axes_are_the_case_s():
    listed = (Input("ids", "int64", ("batch", 20)), Input("image", "float32", ("batch", 3, None, "w")))
    made = Artifact("net.onnx", "0", "float32", listed, ("onnxruntime",), "onnxruntime")
    assert files.own_sizes(made) == (None, None, None)
    assert files.shapes_of(made, 2, (7, 5)) == {"ids": (2, 20), "image": (2, 3, 7, 5)}


def test_a_file_s_axes_collapse_to_what_the_graph_says(free):
    found = source(free[0], {"image": (1, 3, *SIDES)})
    (entry,) = cases(found, layouts=("channels_last", "contiguous"), windows=(3, 5), channels=(32, 64))
    case = entry.case
    assert (case.lowering, case.dtype, case.layout, case.batch, case.resolution) == (
        "onnxruntime", "float32", "contiguous", 1, SIDES,
    )  # fmt: skip
    assert (case.window, case.channels, entry.reason) == (None, None, None)


def test_free_axes_are_swept_and_fixed_ones_are_not(free, tmp_path):
    swept = cases(source(free[0]), batches=(1, 3), resolutions=(SIDES, (20, 20)))
    assert [entry.reason for entry in swept] == [None] * 4
    two(tmp_path / "net.onnx", free=False)
    entries = cases(source(tmp_path / "net.onnx"), batches=(2, 4))
    assert entries[0].reason is None
    assert "got batch 4, which the file or --shape fixes at 2" in (entries[1].reason or "")
    with pytest.raises(UsageError, match="got height 32, which the file"):
        cases(source(tmp_path / "net.onnx"), resolutions=((32, 32),))


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ({"image": (1, 3, 13)}, "expected 4 axes as the graph has: batchx3xhxw"),
        ({"image": (1, 4, 13, 9)}, "which the graph fixes at 3"),
        ({"image": (1, 3, 13, 9), "ids": (2, 4)}, "expected one size"),
    ],
)
def test_a_shape_that_the_graph_cannot_have_is_refused(shapes, said, free):
    with pytest.raises(UsageError, match=said):
        source(free[0], shapes)


def test_an_axis_that_nothing_sizes_is_named(tmp_path):
    nodes = [helper.make_node("Identity", ["x"], ["a"]), helper.make_node("Identity", ["m"], ["b"])]
    listed = {"x": (1, ["n", 3, 8, 8]), "m": (1, [None, 5])}
    build(tmp_path / "net.onnx", nodes, listed, {"a": (1, None), "b": (1, None)})
    with pytest.raises(UsageError, match=r"axis 0 \(without a name\) of input 'm', .* --shape m:1x5"):
        cases(source(tmp_path / "net.onnx"), batches=(2,))
    assert cases(source(tmp_path / "net.onnx", {"m": (4, 5)}), batches=(2,))[0].reason is None


def test_only_graph_runtimes_take_files_and_only_in_the_graph_s_own_precision(free):
    found = source(free[0], {"image": (1, 3, *SIDES)})
    entries = cases(found, lowerings=("eager", "compile", "onnxruntime", "tensorrt_rtx:dynamic", "tensorrt"))
    assert [entry.reason is None for entry in entries] == [False, False, True, False, True]
    assert "takes modules, not an ONNX file: use onnxruntime or openvino" in (entries[0].reason or "")
    by_dtype = cases(found, dtypes=("float32", "tf32", "float16"))
    assert [entry.reason is None for entry in by_dtype] == [True, True, False]
    assert "got dtype float16 for a graph in float32" in (by_dtype[2].reason or "")


def test_the_own_precision_is_that_of_the_weights(tmp_path):
    two(tmp_path / "half.onnx", torch.float16)
    assert source(tmp_path / "half.onnx", {"image": (1, 3, *SIDES)}).artifact.dtype == "float16"
    weight = numpy_helper.from_array(np.ones((3, 5), np.float16), "w")
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["h", "w"], ["p"]),
        helper.make_node("Cast", ["p"], ["y"], to=TensorProto.FLOAT),
    ]
    build(tmp_path / "io.onnx", nodes, {"x": (1, [2, 3])}, {"y": (1, [2, 5])}, [weight])
    assert source(tmp_path / "io.onnx").artifact.dtype == "float16"
    build(tmp_path / "ints.onnx", [helper.make_node("Neg", ["x"], ["y"])], {"x": (7, [2, 3])}, {"y": (7, [2, 3])})
    with pytest.raises(Unsupported, match="integers alone"):
        source(tmp_path / "ints.onnx")


def proof_of(record):
    assert record.proof is not None
    return record.proof


@pytest.fixture(scope="module")
def run(free, tmp_path_factory):
    """A finished run of a file at two batches, and how it was asked for."""
    folder = tmp_path_factory.mktemp("artifacts")
    shutil.copy(free[0], folder / "net.onnx")
    axes = ("--models", "net.onnx", "--batches", "1,3", "--resolutions", "13x9", "--lowerings", "eager,onnxruntime")
    done = mixprof("sweep", *axes, "--out", "run", *QUICK, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, axes


def test_a_sweep_of_a_file_records_what_it_was_and_what_it_was_fed_with(run):
    folder, _ = run
    records = {(r.case.model, r.case.lowering, r.case.batch): r for r in run_folder.read_records(folder / "run")}
    assert {key: record.status for key, record in records.items()} == {
        ("anchor_v1", "onnxruntime", 1): "ok",
        ("net.onnx", "eager", 1): "unsupported",
        ("net.onnx", "eager", 3): "unsupported",
        ("net.onnx", "onnxruntime", 1): "ok",
        ("net.onnx", "onnxruntime", 3): "ok",
    }
    record = records["net.onnx", "onnxruntime", 3]
    assert (record.case.resolution, record.case.window, record.case.channels) == (SIDES, None, None)
    assert record.macs == 3 * (8 * 27 * 13 * 9 + 8 * 5)
    assert record.params == 8 * 27 + 8 + 7 * 8 + 8 * 5 + 5
    assert record.relative_error is not None
    assert record.relative_error <= 1e-4
    assert proof_of(record)["inputs"]["image"]["shape"] == [3, 3, *SIDES]
    assert proof_of(record)["inputs"]["ids"] == {
        "shape": [3, 4], "dtype": "int64", "values": "random integers from 0 to 1",
    }  # fmt: skip
    assert proof_of(record)["reference"].startswith("onnxruntime on the CPU, graph optimisation disabled")
    assert record.launches[0].host_ms is not None
    manifest = run_folder.read_manifest(folder / "run")
    assert manifest.artifacts["net.onnx"].sha256 == proof_of(record)["artifact_sha256"]


def test_resuming_with_the_same_file_measures_nothing_and_with_another_is_refused(run, tmp_path):
    folder, axes = run
    shutil.copytree(folder, tmp_path / "copy")
    again = ("sweep", *axes, "--out", "run", "--resume", *QUICK)
    before = (tmp_path / "copy" / "run" / "launches.jsonl").read_bytes()
    done = mixprof(*again, cwd=tmp_path / "copy")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "copy" / "run" / "launches.jsonl").read_bytes() == before
    other = mixprof(*again, "--shape", "ids:1x4", cwd=tmp_path / "copy")
    assert (other.returncode, other.stderr.count("\n")) == (2, 1)
    model = onnx.load(str(tmp_path / "copy" / "net.onnx"))
    model.doc_string = "edited"
    onnx.save(model, str(tmp_path / "copy" / "net.onnx"))
    edited = mixprof(*again, cwd=tmp_path / "copy")
    assert (edited.returncode, edited.stderr.count("\n")) == (4, 1)
    assert "was measured with another 'net.onnx'" in edited.stderr


def test_a_report_time_count_and_plan_take_a_file(run, tmp_path):
    folder, _ = run
    shape = ("--shape", "image:2x3x13x9")
    done = mixprof("report", folder / "run", "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    assert "net.onnx" in (tmp_path / "report" / "summary.md").read_text()
    counted = json.loads(mixprof("count", "net.onnx", *shape, "--json", cwd=folder).stdout)
    assert counted["macs"] == 2 * (8 * 27 * 13 * 9 + 8 * 5)
    assert counted["macs_by_op"] == {"Conv": 2 * 8 * 27 * 13 * 9, "Gemm": 2 * 8 * 5}
    planned = json.loads(mixprof("plan", "--models", "net.onnx", *shape, "--json", cwd=folder).stdout)
    assert planned["cases"][1]["macs"] == counted["macs"]
    assert planned["cases"][1]["case"]["lowering"] == "onnxruntime"
    done = mixprof("time", "net.onnx", *shape, *QUICK, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "net.onnx" in done.stdout
    assert sorted(path.name for path in folder.iterdir()) == ["net.onnx", "run"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("net.onnx",), "got no size for axis 0 (batch), 2 (h), 3 (w) of input 'image'"),
        (("net.onnx", "--shape", "image:1x3x13x9", "--shape", "idz:1x4"), "got input 'idz', expected ids"),
        (("net.onnx", "--inputs", "missing.npz"), "missing.npz: got no file"),
        (("missing.onnx",), "missing.onnx: got no file that can be read"),
        (("depthwise_conv", "--shape", "x:1x3"), "for models that are files"),
        (("junk.plan",), "got 'junk.plan' without --shape"),
        (("junk.plan", "--shape", "x:1x3x8x8"), "count the ONNX file that it was built from"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, said, free, tmp_path):
    shutil.copy(free[0], tmp_path / "net.onnx")
    (tmp_path / "junk.plan").write_bytes(b"junk")
    done = mixprof("count", *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """A folder with a graph of two inputs, and the engine that TensorRT-RTX makes of it."""
    trt = pytest.importorskip("tensorrt_rtx")
    from mixprof.lowerings.tensorrt import build as engines

    folder = tmp_path_factory.mktemp("engine")
    two(folder / "net.onnx", torch.float16, free=False)
    built = engines.build(trt, (folder / "net.onnx").read_bytes(), engines.Recipe("tensorrt_rtx", False))
    (folder / "net.plan").write_bytes(built.engine)
    (folder / "cut.plan").write_bytes(built.engine[:-1000])
    (folder / "junk.plan").write_bytes(b"junk" * 1000)
    return folder


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device here to run engines on")
def test_files_become_engines_and_engines_are_never_claimed_to_be_more_than_built(engine, monkeypatch, tmp_path):
    monkeypatch.setenv("MIXPROF_CACHE", str(tmp_path / "cache"))
    names = ("net.onnx", "net.plan", "cut.plan", "junk.plan")
    shapes = "image:2x3x13x9,ids:2x4"
    axes = ("--lowerings", "tensorrt_rtx", "--devices", "cuda:0", "--shape", shapes)
    done = mixprof("sweep", "--models", ",".join(names), *axes, "--out", tmp_path / "run", *QUICK, cwd=engine)
    assert done.returncode == 0, done.stderr
    records = {record.case.model: record for record in run_folder.read_records(tmp_path / "run")}
    assert {name: records[name].status for name in names} == {
        "net.onnx": "built", "net.plan": "built", "cut.plan": "unsupported", "junk.plan": "unsupported",
    }  # fmt: skip
    graphed, ready = records["net.onnx"], records["net.plan"]
    assert graphed.case.dtype == "float16"
    assert (graphed.case.batch, graphed.case.resolution) == (ready.case.batch, ready.case.resolution) == (2, SIDES)
    assert proof_of(graphed)["product_dtypes"][0] == "Half"
    assert proof_of(graphed)["kernels"] > 0
    assert proof_of(graphed)["inputs"]["ids"]["shape"] == [2, 4]
    assert graphed.macs == 2 * (8 * 27 * 13 * 9 + 8 * 5)
    assert ready.artifact_bytes == (engine / "net.plan").stat().st_size
    assert (ready.macs, ready.params, ready.build_s, ready.relative_error) == (None, None, None, None)
    assert proof_of(ready)["reference"] is None
    assert proof_of(graphed)["reference_reason"] == "nothing was run here to be compared with it"
    assert "without the graph" in proof_of(ready)["reference_reason"]
    assert f"--loadEngine={engine / 'net.plan'}" in proof_of(ready)["trtexec"]
    assert "image:2x3x13x9,ids:2x4" in proof_of(ready)["trtexec"]
    assert "no engine that it takes" in (records["cut.plan"].reason or "")
    for record in records.values():
        assert record.launches[0].gpu_ms is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device here to run engines on")
def test_an_engine_is_for_a_device_and_takes_no_options_of_building(engine):
    found = source(engine / "net.plan", {"image": (2, 3, *SIDES)})
    names = ("tensorrt_rtx", "tensorrt_rtx:graph=on", "tensorrt_rtx:opt=5", "onnxruntime")
    entries = cases(found, lowerings=names, devices=("cuda:0",), dtypes=("float16", "float32"))
    assert [entry.reason is None for entry in entries] == [True, True, False, False]
    assert {entry.case.dtype for entry in entries} == {"float16"}
    assert "leave out all options" in (entries[2].reason or "")
    assert "takes modules, not a ready engine" in (entries[3].reason or "")
