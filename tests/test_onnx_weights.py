"""Parameters of ONNX graphs: quantized as onnxruntime quantizes them they are as many as before."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnxruntime import quantization
from torch import nn

from mixprof.lowerings import onnx_weights
from mixprof.lowerings.onnx_export import export
from mixprof.metrics import onnx_macs
from onnx_makers import FLOAT, array, node, save, weights


class Feeds(quantization.CalibrationDataReader):
    """Two batches to calibrate with."""

    def __init__(self, name):
        self.left = [{name: np.random.default_rng(seed).normal(size=(1, 3, 16, 16)).astype("f")} for seed in range(2)]

    def get_next(self):
        return self.left.pop() if self.left else None


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A network in float32, its file, and its parameters."""
    path = tmp_path_factory.mktemp("plain") / "net.onnx"
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU6(), nn.Conv2d(8, 16, 3, groups=4), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 5),
    ).eval()  # fmt: skip
    with torch.no_grad():
        export(module, (torch.randn(1, 3, 16, 16),), path)
    return path, sum(each.numel() for each in module.parameters())


def counted(path):
    """Parameters and MACs, shapes read from onnxruntime where they must be."""

    def run(model):
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        fed = {each.name: np.zeros(each.shape, np.float32) for each in session.get_inputs()}
        names = [each.name for each in session.get_outputs()]
        return dict(zip(names, session.run(names, fed), strict=True))

    model = onnx.load(str(path))
    counts = onnx_macs.count(model, run)
    assert counts.uncounted_ops == ()
    return onnx_weights.parameters(model), counts.macs


def dynamically(source, target):
    quantization.quantize_dynamic(source, target, weight_type=quantization.QuantType.QInt8)


def statically(form, per_channel=False):
    def quantize(source, target):
        name = onnx.load(str(source)).graph.input[0].name
        quantization.quantize_static(source, target, Feeds(name), quant_format=form, per_channel=per_channel)

    return quantize


def fused(source, target):
    """As onnxruntime saves what it has optimised."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(target)
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    "change",
    [
        dynamically,
        statically(quantization.QuantFormat.QDQ),
        statically(quantization.QuantFormat.QDQ, per_channel=True),
        statically(quantization.QuantFormat.QOperator),
        fused,
    ],
    ids=("dynamic", "qdq", "qdq by channel", "operators", "fused"),
)
def test_what_onnxruntime_makes_of_a_network_has_its_parameters_and_macs(change, plain, tmp_path):
    path, params = plain
    macs = 14 * 14 * 8 * 27 + 12 * 12 * 16 * 2 * 9 + 16 * 24 + 24 * 5
    assert counted(path) == (params, macs)
    change(path, tmp_path / "changed.onnx")
    names = {each.op_type for each in onnx.load(str(tmp_path / "changed.onnx")).graph.node}
    assert names != {each.op_type for each in onnx.load(str(path)).graph.node}
    assert counted(tmp_path / "changed.onnx") == (params, macs)


def test_inputs_that_hold_scales_or_zero_points_are_those_that_the_operators_name_so():
    schemas = onnxruntime.capi.onnxruntime_pybind11_state.get_all_operator_schema()
    known = {each.name: each for each in schemas if each.domain == "com.microsoft"}
    known |= {each.name: each for each in onnx.defs.get_all_schemas() if each.domain == ""}
    quantizing = ("Quant", "QLinear", "QGemm", "QAttention", "MatMulIntegerToFloat")
    for name, indices in onnx_weights.SETTINGS.items():
        if name != "QLinearConcat" and any(word in name for word in quantizing):
            named = [i for i, each in enumerate(known[name].inputs) if "scale" in each.name or "zero" in each.name]
            assert sorted(indices) == named, name


def test_a_literal_and_statistics_are_no_parameters_and_a_tensor_of_two_uses_is_counted_once(tmp_path):
    nodes = [
        node("Constant", "", "two", value_float=2.0), node("Mul", "x two", "a"), node("MatMul", "a w", "b"),
        node("MatMul", "b w", "c"), node("BatchNormalization", "c gamma beta mean variance", "y"),
    ]  # fmt: skip
    constants = [weights(name, 8) for name in ("gamma", "beta", "mean")]
    constants += [weights("w", 8, 8), array("variance", np.ones(8), np.float32)]
    path = save(tmp_path / "net.onnx", nodes, {"x": (FLOAT, [4, 8])}, {"y": (FLOAT, [4, 8])}, constants)
    assert counted(path) == (64 + 16, 2 * 4 * 64)
