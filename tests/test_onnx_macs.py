"""Multiply-accumulates of ONNX graphs: closed forms, and torch's counts of what was exported."""

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from mixprof import models
from mixprof.lowerings import onnxruntime
from mixprof.metrics import flops, onnx_macs
from mixprof.worker import graphs
from onnx_files import build, cases, request, source


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("window_attention:shifted=true", (2, 14, 14, 96)),
        ("depthwise_conv", (2, 9, 11, 96)),
        ("global_attention", (1, 7, 6, 96)),
        ("swin_t", (1, 3, 64, 64)),
        ("dwnet_t", (1, 3, 45, 71)),
    ],
)
def test_an_exported_model_counts_as_torch_counts_it(name, shape, tmp_path):
    network = shape[1] == 3
    resolution, channels = (shape[2:], None) if network else (shape[1:3], 96)
    module = models.build(name, resolution=resolution, channels=channels).requires_grad_(False)
    with torch.no_grad():
        onnxruntime.export(module, (torch.randn(shape),), tmp_path / "net.onnx")
    counts = onnx_macs.count(onnx.load(str(tmp_path / "net.onnx")))
    with torch.inference_mode():
        expected = flops.count(module, torch.empty(shape))
    assert counts.macs == expected.macs
    assert counts.uncounted_ops == ()


def test_parameters_of_an_export_are_the_module_s(tmp_path):
    module = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4, 5)).eval()
    with torch.no_grad():
        onnxruntime.export(module, (torch.randn(1, 3, 4, 4),), tmp_path / "net.onnx")
    found = source(tmp_path / "net.onnx")
    counted = graphs.count(request(found, cases(found)[0].case, tmp_path))
    assert counted["params"] == sum(each.numel() for each in module.parameters()) == 3 * 8 * 9 + 32 * 5 + 5
    assert counted["macs"] == 8 * 2 * 2 * 27 + 32 * 5
    assert counted["input_bytes"] == 3 * 4 * 4 * 4
    assert counted["weights_bytes"] >= 4 * counted["params"]  # and the shapes that it reshapes to


def floats(name, *shape):
    return numpy_helper.from_array(np.ones(shape, np.float32), name)


@pytest.mark.parametrize(
    ("node", "given", "weights", "macs"),
    [
        (("Conv", {"group": 4}), [(2, 8, 7, 5)], [(12, 2, 3, 3)], 2 * 12 * 5 * 3 * 2 * 9),
        (("ConvTranspose", {"group": 2}), [(2, 8, 7, 5)], [(8, 3, 3, 2)], 2 * 8 * 35 * 3 * 6),
        (("MatMul", {}), [(2, 4, 5, 6), (4, 6, 7)], [], 2 * 4 * 5 * 6 * 7),
        (("MatMul", {}), [(6,), (6,)], [], 6),
        (("Gemm", {"transA": 1}), [(6, 5), (6, 7)], [], 5 * 6 * 7),
        (("Gemm", {"transB": 1}), [(5, 6)], [(7, 6), (7,)], 5 * 6 * 7),
        (("Einsum", {"equation": "bhic,bhjc->bhij"}), [(2, 3, 4, 5), (2, 3, 6, 5)], [], 2 * 3 * 4 * 6 * 5),
        (("Einsum", {"equation": "bc,c->bc"}), [(2, 3), (3,)], [], 0),
        (("Attention", {}), [(2, 4, 5, 6), (2, 2, 9, 6), (2, 2, 9, 7)], [], 2 * 4 * 5 * 9 * (6 + 7)),
    ],
)
def test_a_product_costs_what_its_closed_form_says(node, given, weights, macs, tmp_path):
    kind, attributes = node
    names = [f"x{index}" for index in range(len(given))] + [f"w{index}" for index in range(len(weights))]
    made = [helper.make_node(kind, names, ["y"], **attributes)]
    listed = {f"x{index}": (1, list(shape)) for index, shape in enumerate(given)}
    constants = [floats(f"w{index}", *shape) for index, shape in enumerate(weights)]
    model = build(tmp_path / "net.onnx", made, listed, {"y": (1, None)}, constants, opset=23)
    assert onnx_macs.count(model).macs == macs
    assert onnx_macs.count(model).uncounted_ops == ()


def test_what_has_no_closed_form_is_named(tmp_path):
    nodes = [
        helper.make_node("GridSample", ["x", "g"], ["h"]),
        helper.make_node("MyProduct", ["x"], ["z"], domain="mine"),
        helper.make_node("MatMul", ["z", "m"], ["y"]),
    ]
    weights = [floats("g", 1, 4, 4, 2), floats("m", 3, 3)]
    model = build(tmp_path / "net.onnx", nodes, {"x": (1, [1, 2, 3, 3])}, {"h": (1, None), "y": (1, None)}, weights)
    model.opset_import.append(helper.make_opsetid("mine", 1))
    assert onnx_macs.count(model).uncounted_ops == ("GridSample", "MatMul", "mine.MyProduct")
    assert onnx_macs.count(model).macs == 0
