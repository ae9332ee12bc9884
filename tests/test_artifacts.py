"""People's own files: ONNX graphs that are exported or built here, and a real engine of TensorRT-RTX."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import models
from profiler import sources, store
from profiler.artifacts import files, graph, inputs, work
from profiler.artifacts.files import Artifact, Given, Input
from profiler.lowerings import Target, onnxruntime
from profiler.metrics import accuracy, flops, onnx_macs
from profiler.sweep import Axes, expand
from profiler.types import Unsupported, UsageError

TESTS = Path(__file__).parent
QUICK = ("--quick", "--threads", "1", "--max-lost-cpu", "1")
SIDES = (13, 9)


class Two(nn.Module):
    """Pictures and indices into a table of seven rows: (B, 3, H, W), (B, L) -> (B, 5) and the largest's index, (B,)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.conv, self.table, self.out = nn.Conv2d(3, 8, 3, padding=1), nn.Embedding(7, 8), nn.Linear(8, 5)

    def forward(self, image, ids):
        scores = self.out(torch.relu(self.conv(image)).mean((2, 3)) + self.table(ids).sum(1))
        return scores, scores.argmax(1)


def two(path, dtype=torch.float32, free=True):
    """Export it with batch, height and width free, or all of them fixed."""
    module = Two().eval().to(dtype)
    axes = {"image": {0: "batch", 2: "h", 3: "w"}, "ids": {0: "batch"}} if free else None
    example = (torch.randn(2, 3, *SIDES, dtype=dtype), torch.zeros(2, 4, dtype=torch.int64))
    torch.onnx.export(
        module, example, str(path), dynamo=False, opset_version=17,
        input_names=["image", "ids"], output_names=["scores", "best"], dynamic_axes=axes,
    )  # fmt: skip
    return module


def build(path, nodes, given, returned, weights=(), opset=20, functions=()):
    """A graph of onnx.helper. given, returned: name -> (element type, shape)."""
    values = [[helper.make_tensor_value_info(name, *each) for name, each in side.items()] for side in (given, returned)]
    made = helper.make_graph(nodes, "built", *values, initializer=list(weights))
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], functions=functions)
    model.ir_version = 10
    onnx.save(model, str(path))
    return model


def source(path, shapes=None, archive=None):
    found = work.inspect({"path": str(path), "inputs": None if archive is None else str(archive)})
    return sources.of_file(str(path), Given(shapes or {}, None if archive is None else str(archive)), found)


def request(found, case, tmp_path):
    from profiler.executors.server import source_request

    return {
        "source": source_request(found),
        "case": case.to_json(),
        "threads": 1,
        "reference": str(tmp_path / "reference.pt"),
        "cache": str(tmp_path),
    }


def cases(found, name="net.onnx", **axes):
    return expand([Axes(models=(name,), **{"devices": ("cpu",), **axes})], lambda _: found, ["cpu"])


def mixprof(*arguments, cwd=TESTS):
    command = [sys.executable, "-m", "profiler.cli", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def free(tmp_path_factory):
    """A file with free batch, height and width, and its module."""
    path = tmp_path_factory.mktemp("free") / "two.onnx"
    return path, two(path)


# What a case of a file is


@pytest.mark.parametrize(
    ("shape", "dtype", "batch", "resolution"),
    [
        ((2, 3, 800, 1333), "float32", 2, (800, 1333)),
        ((2, 224, 200, 3), "uint8", 2, (224, 200)),
        ((4, 14, 14, 96), "float16", 4, (14, 14)),
        ((1, 96, 14, 14), "float16", 1, (14, 14)),
        ((1, 64, 64, 64), "float32", 1, (64, 64)),
        ((3, 197, 384), "float32", 3, (1, 197)),
        ((3, 20), "int64", 3, (1, 20)),
        ((5,), "float32", 5, (1, 1)),
        ((), "float32", 1, (1, 1)),
    ],
)
def test_batch_and_resolution_are_those_of_the_first_picture_or_sequence(shape, dtype, batch, resolution):
    made = Artifact("net.onnx", "0", "float32", (Input("x", dtype, shape),), ("onnxruntime",), "onnxruntime")
    height, width = resolution
    assert files.own_sizes(made) == (batch, height, width)
    assert files.shapes_of(made, batch, resolution) == {"x": shape}


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
    assert "got batch 4, which the file or --shape fixes at 2" in entries[1].reason
    with pytest.raises(UsageError, match="got height 32, which the file"):
        cases(source(tmp_path / "net.onnx"), resolutions=((32, 32),))


def test_only_graph_runtimes_take_files_and_only_in_the_graph_s_own_precision(free):
    found = source(free[0], {"image": (1, 3, *SIDES)})
    entries = cases(found, lowerings=("eager", "compile", "onnxruntime", "tensorrt_rtx:dynamic", "tensorrt"))
    assert [entry.reason is None for entry in entries] == [False, False, True, False, True]
    assert "takes modules, not an ONNX file: use onnxruntime or tensorrt" in entries[0].reason
    by_dtype = cases(found, dtypes=("float32", "tf32", "float16"))
    assert [entry.reason is None for entry in by_dtype] == [True, True, False]
    assert "got dtype float16 for a graph in float32" in by_dtype[2].reason


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


# Counts


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
    resolution = shape[2:] if shape[1] == 3 else shape[1:3]
    channels = {} if shape[1] == 3 else {"channels": 96}
    module = models.build(name, resolution=resolution, **channels).requires_grad_(False)
    with torch.no_grad():
        onnxruntime.export(module, (torch.randn(shape),), tmp_path / "net.onnx")
    counts = onnx_macs.count(onnx.load(str(tmp_path / "net.onnx")))
    with torch.inference_mode():
        expected = flops.count(module, torch.empty(shape))
    assert counts.macs == expected.macs
    assert counts.uncounted_ops == ()


def test_parameters_are_the_elements_of_float_initializers(tmp_path):
    module = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4, 5)).eval()
    with torch.no_grad():
        onnxruntime.export(module, (torch.randn(1, 3, 4, 4),), tmp_path / "net.onnx")
    found = source(tmp_path / "net.onnx")
    counted = work.count(request(found, cases(found)[0].case, tmp_path))
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
        helper.make_node("LSTM", ["x", "w", "r"], ["h"], hidden_size=4),
        helper.make_node("MyProduct", ["x"], ["z"], domain="mine"),
        helper.make_node("MatMul", ["z", "m"], ["y"]),
    ]
    weights = [floats("w", 1, 16, 3), floats("r", 1, 16, 4), floats("m", 3, 3)]
    model = build(tmp_path / "net.onnx", nodes, {"x": (1, [5, 2, 3])}, {"h": (1, None), "y": (1, None)}, weights)
    assert onnx_macs.count(model).uncounted_ops == ("LSTM", "MatMul", "mine.MyProduct")
    assert onnx_macs.count(model).macs == 0


# Inputs, reference and output


def test_the_reference_is_what_torch_computes(free, tmp_path):
    path, module = free
    found = source(path)
    for entry in cases(found, batches=(1, 3), resolutions=(SIDES,)):
        asked = request(found, entry.case, tmp_path)
        assert work.prepare(asked) == {"status": "ok"}
        saved = torch.load(asked["reference"], weights_only=True)
        fed = saved["inputs"]
        assert fed["image"].shape == (entry.case.batch, 3, *SIDES)
        assert fed["image"].std() > 0.5
        assert set(fed["ids"].flatten().tolist()) <= {0, 1}
        scores, best = module(**fed)
        torch.testing.assert_close(saved["expected"][0], scores, rtol=1e-5, atol=1e-6)
        assert torch.equal(saved["expected"][1], best)
        assert saved["reference"] == "onnxruntime on the CPU, graph optimisation disabled, float32"


def test_arrays_of_an_archive_are_what_it_is_fed_with(free, tmp_path):
    path, module = free
    image, ids = torch.randn(1, 3, *SIDES), torch.tensor([[6, 2, 0, 5]])
    np.savez(tmp_path / "mine.npz", image=image.numpy(), ids=ids.numpy())
    found = source(path, archive=tmp_path / "mine.npz")
    (entry,) = cases(found)
    assert (entry.case.batch, entry.case.resolution) == (1, SIDES)
    asked = request(found, entry.case, tmp_path)
    assert work.prepare(asked) == {"status": "ok"}
    expected = torch.load(asked["reference"], weights_only=True)["expected"]
    torch.testing.assert_close(expected[0], module(image, ids)[0], rtol=1e-5, atol=1e-6)
    np.savez(tmp_path / "mine.npz", image=image.numpy() + 1, ids=ids.numpy())
    with pytest.raises(Unsupported, match="mine.npz was changed after this began"):
        work.prepare(asked)


def test_indices_that_the_graph_cannot_look_up_are_said_to_be_so(free, tmp_path):
    np.savez(tmp_path / "mine.npz", image=np.zeros((1, 3, *SIDES), np.float32), ids=np.full((1, 4), 7))
    found = source(free[0], archive=tmp_path / "mine.npz")
    with pytest.raises(Unsupported, match=r"does not run .* on these inputs .*: give others with --inputs"):
        work.prepare(request(found, cases(found)[0].case, tmp_path))


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"image": np.zeros((1, 3, 13, 9), np.float32)}, "expected one array for each input: image, ids"),
        ({"image": np.zeros((1, 3, 13, 9)), "ids": np.zeros((1, 4), np.int64)}, "got float64 for input 'image'"),
        ({"image": np.zeros((3, 13, 9), np.float32), "ids": np.zeros((1, 4), np.int64)}, "expected 4 axes"),
        ({"image": np.zeros((1, 4, 13, 9), np.float32), "ids": np.zeros((1, 4), np.int64)}, "fixes at 3"),
        ({"image": np.zeros((2, 3, 13, 9), np.float32), "ids": np.zeros((1, 4), np.int64)}, "the same axis"),
        ({"image": np.zeros((0, 3, 13, 9), np.float32), "ids": np.zeros((1, 4), np.int64)}, "an empty array"),
        ({"image": np.array([{}]), "ids": np.zeros((1, 4), np.int64)}, "no archive of plain arrays"),
    ],
)
def test_an_archive_that_does_not_fit_is_refused(arrays, said, free, tmp_path):
    np.savez(tmp_path / "mine.npz", **arrays)
    with pytest.raises((Unsupported, UsageError), match=said):
        source(free[0], archive=tmp_path / "mine.npz")


def test_what_is_no_archive_is_refused_and_never_unpickled(free, tmp_path):
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (Path.touch, (ran,))

    np.save(tmp_path / "evil.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    (tmp_path / "junk.npz").write_bytes(b"junk")
    (tmp_path / "empty.npz").write_bytes(b"")
    for name in ("evil.npy", "junk.npz", "empty.npz", "missing.npz"):
        with pytest.raises(Unsupported, match=f"{name}: got"):
            inputs.read(tmp_path / name)
    assert not ran.exists()


def test_every_output_is_read_also_one_whose_shape_depends_on_values(tmp_path):
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("NonZero", ["a"], ["where"]),
        helper.make_node("ArgMax", ["x"], ["best"], axis=1, keepdims=0),
    ]
    returned = {"a": (1, [2, 3]), "where": (7, [2, None]), "best": (7, [2])}
    build(tmp_path / "net.onnx", nodes, {"x": (1, [2, 3])}, returned)
    x = torch.tensor([[1.0, -2.0, 3.0], [0.0, 5.0, -6.0]])
    target = Target("cpu", "float32", "contiguous", {}, 1, tmp_path, True, "")
    lowered = onnxruntime.lower_file(tmp_path / "net.onnx", (x,), target)
    for _ in range(2):
        relu, where, best = lowered.read_all()
        assert torch.equal(relu, x.clamp_min(0))
        assert torch.equal(where, (x > 0).nonzero().T)
        assert best.tolist() == [2, 1]


def test_the_worst_output_is_what_counts():
    right = [torch.tensor([2.0, 4.0]), torch.tensor([1, 2, 3, 4])]
    assert accuracy.worst_error([each.clone() for each in right], right) == 0.0
    assert accuracy.worst_error([torch.tensor([2.0, 4.4]), right[1]], right) == pytest.approx(0.1)
    assert accuracy.worst_error([right[0], torch.tensor([1, 2, 3, 5])], right) == 0.25
    assert accuracy.worst_error([right[0], right[1][:3]], right) == float("inf")
    assert accuracy.worst_error([torch.tensor([2.0, float("nan")]), right[1]], right) == float("inf")
    assert accuracy.worst_error(right[:1], right) == float("inf")


def test_a_bfloat16_graph_has_no_reference_where_onnxruntime_refuses_it(tmp_path):
    module = nn.Conv2d(3, 4, 3).bfloat16()
    with torch.no_grad():
        onnxruntime.export(module, (torch.randn(1, 3, 8, 8).bfloat16(),), tmp_path / "net.onnx")
    found = source(tmp_path / "net.onnx")
    (entry,) = cases(found)
    assert entry.case.dtype == "bfloat16"
    asked = request(found, entry.case, tmp_path)
    assert work.prepare(asked) == {"status": "ok"}
    saved = torch.load(asked["reference"], weights_only=True)
    assert (saved["reference"], saved["expected"]) == (None, None)
    assert saved["why"].startswith("onnxruntime: ")


def test_a_graph_at_fixed_shapes_is_the_file_itself_with_a_name_for_every_node(tmp_path):
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Softmax", ["a"], ["b"], name="Relu_0"),
             helper.make_node("Softmax", ["b"], ["y"], name="Relu_0")]  # fmt: skip
    model = build(tmp_path / "net.onnx", nodes, {"x": (1, ["n", 3])}, {"y": (1, ["n", 3])})
    pinned = graph.pinned(model, {"x": (2, 3)})
    assert len({node.name for node in pinned.graph.node}) == 3
    assert [dim.dim_value for dim in pinned.graph.output[0].type.tensor_type.shape.dim] == [2, 3]
    assert [node.op_type for node in pinned.graph.node] == [node.op_type for node in model.graph.node]


# Weights beside the file, and files that are none


def external(folder, location="weights.bin"):
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3, 5], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            "beside",
            [helper.make_tensor_value_info("x", 1, [2, 3])],
            [helper.make_tensor_value_info("y", 1, [2, 5])],
            [tensor],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
    )
    model.ir_version = 10
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    return folder / "net.onnx"


def test_weights_beside_the_file_are_part_of_it(tmp_path):
    path = external(tmp_path)
    with pytest.raises(Unsupported, match="its weights lie in 'weights.bin' beside it, which cannot be read"):
        source(path)
    weights = np.arange(15, dtype=np.float32).reshape(3, 5)
    weights.tofile(tmp_path / "weights.bin")
    found = source(path)
    asked = request(found, cases(found)[0].case, tmp_path)
    assert work.count(asked)["params"] == 15
    assert work.prepare(asked) == {"status": "ok"}
    saved = torch.load(asked["reference"], weights_only=True)
    torch.testing.assert_close(saved["expected"][0], saved["inputs"]["x"] @ torch.from_numpy(weights))
    (weights + 1).tofile(tmp_path / "weights.bin")
    assert source(path).artifact.sha256 != found.artifact.sha256
    with pytest.raises(Unsupported, match="was changed after this began"):
        work.prepare(asked)


def test_weights_elsewhere_are_refused(tmp_path):
    (tmp_path / "model").mkdir()
    np.ones(15, np.float32).tofile(tmp_path / "secret.bin")
    with pytest.raises(Unsupported, match="expected them in the model's own folder"):
        source(external(tmp_path / "model", "../secret.bin"))


def test_what_is_no_model_is_refused_on_one_line(free, tmp_path):
    whole = free[0].read_bytes()
    contents = {"cut": whole[: len(whole) // 2], "junk": b"junk" * 100, "text": b"hello\n", "empty": b""}
    for name, content in contents.items():
        (tmp_path / f"{name}.onnx").write_bytes(content)
    (tmp_path / "folder.onnx").mkdir()
    for name in (*contents, "folder", "missing"):
        with pytest.raises(Unsupported, match=f"{name}.onnx: got") as caught:
            source(tmp_path / f"{name}.onnx")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image", "expected an input and its sizes"),
        ("image:", "expected an input and its sizes"),
        ("image:1x0x2", "expected an input and its sizes"),
        ("image:1x-1", "expected an input and its sizes"),
        (":1x3", "expected an input and its sizes"),
        ("image:1x3,image:1x3", "twice"),
    ],
)
def test_a_shape_that_is_none_is_refused(text, said):
    with pytest.raises(UsageError, match=said):
        files.parse_shapes([text])


def test_shapes_may_be_listed_or_repeated_and_names_may_hold_colons():
    assert files.parse_shapes(["input:0:1x3", "a:2,b:3x4"]) == {"input:0": (1, 3), "a": (2,), "b": (3, 4)}
    assert files.parse_shapes([]) == {}


# The command line


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
    records = {(r.case.model, r.case.lowering, r.case.batch): r for r in store.read_records(folder / "run")}
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
    assert record.proof["inputs"]["image"]["shape"] == [3, 3, *SIDES]
    assert record.proof["inputs"]["ids"] == {
        "shape": [3, 4], "dtype": "int64", "values": "random integers from 0 to 1",
    }  # fmt: skip
    assert record.proof["reference"].startswith("onnxruntime on the CPU, graph optimisation disabled")
    assert record.launches[0].host_ms is not None
    manifest = store.read_manifest(folder / "run")
    assert manifest["artifacts"]["net.onnx"]["sha256"] == record.proof["artifact_sha256"]


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
        (("net.onnx", "--shape", "image:1x3x13"), "expected 4 axes as the graph has: batchx3xhxw"),
        (("net.onnx", "--shape", "image:1x4x13x9"), "which the graph fixes at 3"),
        (("net.onnx", "--shape", "image:1x3x13x9,ids:2x4"), "expected one size"),
        (("net.onnx", "--shape", "image:1x3x13x9", "--shape", "idz:1x4"), "got input 'idz', expected ids"),
        (("net.onnx", "--inputs", "missing.npz"), "missing.npz: got no file"),
        (("missing.onnx",), "missing.onnx: got no file that can be read"),
        (("depthwise_conv", "--shape", "x:1x3"), "for models that are files"),
        (("net.plan",), "got no file that can be read"),
        (("empty.plan", "--shape", "x:1x3x8x8"), "got an empty file"),
        (("junk.plan",), "got 'junk.plan' without --shape"),
        (("junk.plan", "--shape", "x:1x3x8x8"), "count the ONNX file that it was built from"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, said, free, tmp_path):
    shutil.copy(free[0], tmp_path / "net.onnx")
    (tmp_path / "empty.plan").write_bytes(b"")
    (tmp_path / "junk.plan").write_bytes(b"junk")
    done = mixprof("count", *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


# Engines


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """A folder with a graph of two inputs, and the engine that TensorRT-RTX makes of it."""
    trt = pytest.importorskip("tensorrt_rtx")
    from profiler.engines import builder

    folder = tmp_path_factory.mktemp("engine")
    two(folder / "net.onnx", torch.float16, free=False)
    built = builder.build(trt, (folder / "net.onnx").read_bytes(), builder.Recipe("tensorrt_rtx", False))
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
    records = {record.case.model: record for record in store.read_records(tmp_path / "run")}
    assert {name: records[name].status for name in names} == {
        "net.onnx": "built", "net.plan": "built", "cut.plan": "unsupported", "junk.plan": "unsupported",
    }  # fmt: skip
    graphed, ready = records["net.onnx"], records["net.plan"]
    assert graphed.case.dtype == "float16"
    assert (graphed.case.batch, graphed.case.resolution) == (ready.case.batch, ready.case.resolution) == (2, SIDES)
    assert graphed.proof["product_dtypes"][0] == "Half"
    assert graphed.proof["kernels"] > 0
    assert graphed.proof["inputs"]["ids"]["shape"] == [2, 4]
    assert graphed.macs == 2 * (8 * 27 * 13 * 9 + 8 * 5)
    assert ready.artifact_bytes == (engine / "net.plan").stat().st_size
    assert (ready.macs, ready.params, ready.build_s, ready.relative_error) == (None, None, None, None)
    assert ready.proof["reference"] is None
    assert "without the graph" in ready.proof["reference_reason"]
    assert f"--loadEngine={engine / 'net.plan'}" in ready.proof["trtexec"]
    assert "image:2x3x13x9,ids:2x4" in ready.proof["trtexec"]
    assert "no engine that it takes" in records["cut.plan"].reason
    for record in records.values():
        assert record.launches[0].gpu_ms is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device here to run engines on")
def test_an_engine_is_for_a_device_and_takes_no_options_of_building(engine):
    found = source(engine / "net.plan", {"image": (2, 3, *SIDES)})
    names = ("tensorrt_rtx", "tensorrt_rtx:graph=on", "tensorrt_rtx:opt=5", "onnxruntime")
    entries = cases(found, lowerings=names, devices=("cuda:0",), dtypes=("float16", "float32"))
    assert [entry.reason is None for entry in entries] == [True, True, False, False]
    assert {entry.case.dtype for entry in entries} == {"float16"}
    assert "leave out all options" in entries[2].reason
    assert "takes modules, not a ready engine" in entries[3].reason
