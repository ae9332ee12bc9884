"""Multiply-accumulates of ONNX graphs: closed forms, and torch's counts of what was exported."""

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from mixprof import models
from mixprof.lowerings import onnx_export, onnx_files
from mixprof.metrics import flops, onnx_macs
from mixprof.worker import graphs
from onnx_files import build, cases, request, source
from onnx_people import external, hub_cache


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
        onnx_export.export(module, (torch.randn(shape),), tmp_path / "net.onnx")
    counts = onnx_macs.count(onnx.load(str(tmp_path / "net.onnx")))
    with torch.inference_mode():
        expected = flops.count(module, torch.empty(shape))
    assert counts.macs == expected.macs
    assert counts.uncounted_ops == ()


def test_parameters_of_an_export_are_the_module_s(tmp_path):
    module = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4, 5)).eval()
    with torch.no_grad():
        onnx_export.export(module, (torch.randn(1, 3, 4, 4),), tmp_path / "net.onnx")
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


def grown(folder, trips=5):
    """A Loop in whose trip t a product of (t + 2, 4) by (4, 4) is done, then, in odd trips, one more: an If."""
    value, branch = helper.make_tensor_value_info, {}
    for name, kind in (("then_branch", "MatMul"), ("else_branch", "Identity")):
        given = ["longer", "w"] if kind == "MatMul" else ["longer"]
        made = helper.make_node(kind, given, [f"{name}_y"])
        branch[name] = helper.make_graph([made], name, [], [value(f"{name}_y", 1, None)])
    nodes = [
        helper.make_node("Identity", ["on"], ["still"]),
        helper.make_node("Concat", ["rows", "row"], ["longer"], axis=0),
        helper.make_node("MatMul", ["longer", "w"], ["m"]),
        helper.make_node("Mod", ["i", "two"], ["odd"]),
        helper.make_node("Cast", ["odd"], ["c"], to=9),
        helper.make_node("If", ["c"], ["chosen"], **branch),
    ]
    takes = [value("i", 7, []), value("on", 9, []), value("rows", 1, None)]
    gives = [value("still", 9, []), value("longer", 1, None)]
    body = helper.make_graph(nodes, "body", takes, gives)
    constants = [floats("w", 4, 4), floats("row", 1, 4)]
    constants += [numpy_helper.from_array(np.array(number), name) for name, number in (("trips", trips), ("two", 2))]
    constants.append(numpy_helper.from_array(np.array(True), "go"))
    loop = helper.make_node("Loop", ["trips", "go", "x"], ["y"], body=body)
    return build(folder / "net.onnx", [loop], {"x": (1, [1, 4])}, {"y": (1, None)}, constants)


@pytest.mark.parametrize("trips", [0, 1, 5])
def test_a_loop_counts_each_trip_at_its_own_shapes_and_only_branches_that_are_taken(trips, tmp_path):
    grown(tmp_path, trips)
    found = source(tmp_path / "net.onnx")
    counted = graphs.count(request(found, cases(found)[0].case, tmp_path))
    assert counted["macs"] == sum((trip + 2) * 16 * (2 if trip % 2 else 1) for trip in range(trips))
    assert (counted["params"], counted["uncounted_ops"]) == (20, [])


def test_without_a_run_a_loop_is_named(tmp_path):
    model = grown(tmp_path)
    for run in (None, lambda probed: None):
        counts = onnx_macs.count(model, run)
        assert (counts.macs, counts.uncounted_ops) == (0, ("Loop",))


def test_a_model_too_large_for_one_protobuf_keeps_its_weights_in_files(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_files, "MOST_BYTES", 1 << 17)
    values = np.random.default_rng(0).normal(size=(300, 200)).astype(np.float32)
    values.tofile(tmp_path / "w.bin")
    external(tmp_path, "w.bin", values)
    found = source(tmp_path / "model.onnx")
    (entry,) = cases(found)
    asked = request(found, entry.case, tmp_path)
    counted = graphs.count(asked)
    assert (counted["params"], counted["macs"], counted["weights_bytes"]) == (60_000, 120_000, 240_000)
    assert graphs.prepare(asked) == {"status": "ok"}
    assert (tmp_path / "reference.onnx").stat().st_size < 1000
    saved = torch.load(asked["reference"], weights_only=True)
    torch.testing.assert_close(saved["expected"][0], saved["inputs"][0] @ torch.from_numpy(values))
    assert source(hub_cache(tmp_path).path).artifact.dtype == "float32"
