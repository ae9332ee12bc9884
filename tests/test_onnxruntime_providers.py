"""`onnxruntime:provider=…`: what is absent is said with its command; OpenVINO's runs where it is installed.

TensorRT's has never run: no build of it is here.
"""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from mixprof import lowerings
from mixprof.data.errors import Unavailable, Unsupported
from mixprof.lowerings import Target
from mixprof.lowerings import onnxruntime as ours

onnxruntime = pytest.importorskip("onnxruntime")
HERE = onnxruntime.get_available_providers()


def graph(path, *operators):
    """Operators of one input and one output, one after another, on (2, 4, 4)."""
    names = ["x", *(f"v{number}" for number in range(len(operators) - 1)), "y"]
    nodes = [
        helper.make_node(each, [before], [after], name=f"a_{each}")
        for each, before, after in zip(operators, names[:-1], names[1:], strict=True)
    ]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4, 4])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    model = helper.make_graph(nodes, "net", [given], [out])
    made = helper.make_model(model, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(onnx.shape_inference.infer_shapes(made), path)
    return path


def lower(path, provider, device="cpu", dtype="float32"):
    options = {"provider": provider}
    target = Target(device, dtype, "contiguous", options, 1, path.parent, False, "key", "onnxruntime")
    return ours.lower_file(path, (torch.arange(32.0).reshape(2, 4, 4).sin(),), target)


@pytest.mark.parametrize(("provider", "command"), [("tensorrt", r"mixprof\[tensorrt\]"), ("openvino", "-openvino, in")])
def test_an_absent_provider_is_one_line_with_its_command(tmp_path, provider, command):
    if ours.PROVIDERS[provider] in HERE:
        pytest.skip(f"{provider} is here")
    with pytest.raises(Unavailable, match=rf"this build has no {ours.PROVIDERS[provider]}: .*{command}"):
        lower(graph(tmp_path / "net.onnx", "Relu"), provider)


def test_no_other_provider_is_an_option():
    assert lowerings.parse("onnxruntime:provider=tensorrt")[1] == {"provider": "tensorrt"}
    with pytest.raises(lowerings.UsageError, match="provider=coreml"):
        lowerings.parse("onnxruntime:provider=coreml")


@pytest.fixture
def openvino():
    if ours.PROVIDERS["openvino"] not in HERE:
        pytest.skip("this onnxruntime is not onnxruntime-openvino")
    return "openvino"


def test_openvino_s_provider_runs_and_says_so(tmp_path, openvino):
    lowered = lower(graph(tmp_path / "net.onnx", "Abs", "Sqrt"), openvino)
    assert lowered.proof["provider"] == "OpenVINOExecutionProvider"
    assert lowered.proof["fell_back"] == []
    (got,) = lowered.outputs()
    right = np.sqrt(np.abs(np.sin(np.arange(32.0)))).reshape(2, 4, 4)
    assert np.abs(got.numpy() - right).max() < 1e-5


def test_what_openvino_leaves_to_another_is_named_and_nothing_at_all_refused(tmp_path, openvino):
    lowered = lower(graph(tmp_path / "net.onnx", "Abs", "Det"), openvino)
    assert lowered.proof["fell_back"] == ["a_Det"]
    assert lowered.proof["nodes"] == {"OpenVINOExecutionProvider": 1, "CPUExecutionProvider": 1}
    with pytest.raises(Unsupported, match="takes no node of this graph"):
        lower(graph(tmp_path / "none.onnx", "Det"), openvino)


def test_a_precision_that_it_is_not_told_is_refused(tmp_path, openvino):
    with pytest.raises(Unsupported, match="got bfloat16, expected float32 or float16"):
        lower(graph(tmp_path / "net.onnx", "Relu"), openvino, dtype="bfloat16")
    with pytest.raises(Unsupported, match="got cuda:0, expected cpu"):
        lower(graph(tmp_path / "net.onnx", "Relu"), openvino, device="cuda:0")
