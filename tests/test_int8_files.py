"""int8 of people's own ONNX files: unnamed nodes, two inputs, an .npz by name; what is wrong with them in one line."""

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from mixprof import lowerings
from mixprof.data.errors import Unsupported
from mixprof.lowerings import Target
from mixprof.lowerings.quantize import Calibration
from onnx_files import mixprof as command

FLOAT, LONG = TensorProto.FLOAT, TensorProto.INT64
RANDOM = np.random.default_rng(0)


def graph(path, *, opset=17, dtype=np.float32):
    """Embeds integers, mixes them with pictures by a convolution: y = flatten(conv(x)) @ w + embed(ids)."""
    weights = {
        "k": RANDOM.normal(size=(8, 3, 3, 3)), "w": RANDOM.normal(size=(8 * 64, 10)) / 20,
        "table": RANDOM.normal(size=(4, 10)),
    }  # fmt: skip
    constants = [numpy_helper.from_array(value.astype(dtype), name) for name, value in weights.items()]
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["m"]),
        helper.make_node("Gather", ["table", "ids"], ["e"]),
        helper.make_node("Add", ["m", "e"], ["y"]),
    ]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    values = [helper.make_tensor_value_info(*each) for each in (("x", kind, [2, 3, 8, 8]), ("ids", LONG, [2]))]
    out = helper.make_tensor_value_info("y", kind, [2, 10])
    made = helper.make_graph(nodes, "net", values, [out], constants)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def fed(samples=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return {"x": torch.randn(samples, 3, 8, 8, generator=generator), "ids": torch.ones(samples, dtype=torch.int64)}


def lower(path, engine="onnxruntime", device="cpu", arrays=None):
    given = Calibration(arrays or fed(16, 2), "1", "a test")
    target = Target(device, "int8", "contiguous", {}, 1, path.parent, False, "key", engine, given)
    return lowerings.lower_file(engine, path, tuple(fed().values()), target)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_products_are_integers_and_near_the_float_graph(tmp_path, engine):
    pytest.importorskip(engine)
    import onnxruntime

    path = graph(tmp_path / "net.onnx")
    lowered = lower(path, engine)
    assert sum(lowered.proof["integer_products"].values()) == 1
    assert lowered.proof["kept_in_float"] == ["MatMul_3"]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (right,) = session.run(None, {name: x.numpy() for name, x in fed().items()})
    (got,) = lowered.outputs()
    assert 0 < np.abs(got.numpy() - right).max() < 0.1 * np.abs(right).max()
    lowered.close()


def test_tensorrt_rtx_builds_one(tmp_path, monkeypatch):
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setenv("MIXPROF_CACHE", str(tmp_path / "cache"))
    lowered = lower(graph(tmp_path / "net.onnx"), "tensorrt_rtx", "cuda:0")
    assert sum(lowered.proof["integer_products"].values()) == 1


def test_what_cannot_be_quantized_is_said(tmp_path):
    with pytest.raises(Unsupported, match="got a graph of opset 11, expected 13 or later"):
        lower(graph(tmp_path / "old.onnx", opset=11))
    lower(path := graph(tmp_path / "net.onnx"))
    (quantized,) = (each for each in path.parent.glob("net.*.int8.onnx"))
    with pytest.raises(Unsupported, match="quantized already: leave out --dtypes"):
        lower(quantized)
    with pytest.raises(Unsupported, match="got 16x3x9x9 for input 'x', expected 2x3x8x8"):
        lower(graph(tmp_path / "b.onnx"), arrays={**fed(16), "x": torch.randn(16, 3, 9, 9)})
    with pytest.raises(Unsupported, match="got x, expected an array for input 'ids'"):
        lower(graph(tmp_path / "c.onnx"), arrays={"x": torch.randn(16, 3, 8, 8)})


@pytest.mark.slow
def test_a_file_is_swept_in_float32_and_int8(tmp_path):
    graph(tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", **{name: x.numpy() for name, x in fed(16).items()})
    done = command(
        "sweep", "--models", "net.onnx", "--lowerings", "onnxruntime", "--dtypes", "float32,int8", "--calibration",
        "data.npz", "--out", "run", "--quick", "--seconds", "0.1", "--max-lost-cpu", "1", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "run" / "records.jsonl").read_text().splitlines()]
    of_file = [row for row in rows if row["case"]["model"] == "net.onnx"]
    assert [row["status"] for row in of_file] == ["ok", "ok"], of_file
    quantized = next(row for row in of_file if row["case"]["dtype"] == "int8")
    assert quantized["proof"]["sqnr_db"] > 10
    assert quantized["relative_error"] > 0
