"""What is read of an ONNX file, what it is fed with, and the reference that it is compared with."""

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from mixprof.data.errors import Unsupported, UsageError
from mixprof.lowerings import Target, onnx_export, onnx_graph, onnxruntime
from mixprof.metrics import accuracy
from mixprof.plan import given
from mixprof.worker import graphs as work
from mixprof.worker import inputs
from onnx_files import SIDES, build, cases, request, source, two


@pytest.fixture(scope="module")
def free(tmp_path_factory):
    """A file with free batch, height and width, and its module."""
    path = tmp_path_factory.mktemp("free") / "two.onnx"
    return path, two(path)


def test_the_reference_is_what_torch_computes(free, tmp_path):
    path, module = free
    found = source(path)
    for entry in cases(found, batches=(1, 3), resolutions=(SIDES,)):
        asked = request(found, entry.case, tmp_path)
        assert work.prepare(asked) == {"status": "ok"}
        saved = torch.load(asked["reference"], weights_only=True)
        fed = dict(zip(("image", "ids"), saved["inputs"], strict=True))
        assert fed["image"].shape == (entry.case.batch, 3, *SIDES)
        assert fed["image"].std() > 0.5
        assert set(fed["ids"].flatten().tolist()) <= {0, 1}
        scores, best = module(**fed)
        torch.testing.assert_close(saved["expected"][0], scores, rtol=1e-5, atol=1e-6)
        assert torch.equal(saved["expected"][1], best)
        assert saved["note"] == "onnxruntime on the CPU, graph optimisation disabled, float32"


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
    with pytest.raises(Unsupported, match=r"mine\.npz was changed after this began"):
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
    read_all = lowered.read_all
    assert read_all is not None
    for _ in range(2):
        relu, where, best = read_all()
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
        onnx_export.export(module, (torch.randn(1, 3, 8, 8).bfloat16(),), tmp_path / "net.onnx")
    found = source(tmp_path / "net.onnx")
    (entry,) = cases(found)
    assert entry.case.dtype == "bfloat16"
    asked = request(found, entry.case, tmp_path)
    assert work.prepare(asked) == {"status": "ok"}
    saved = torch.load(asked["reference"], weights_only=True)
    assert saved["expected"] is None
    assert saved["note"].startswith("onnxruntime: ")


def test_a_graph_at_fixed_shapes_is_the_file_itself_with_a_name_for_every_node(tmp_path):
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Softmax", ["a"], ["b"], name="Relu_0"),
             helper.make_node("Softmax", ["b"], ["y"], name="Relu_0")]  # fmt: skip
    model = build(tmp_path / "net.onnx", nodes, {"x": (1, ["n", 3])}, {"y": (1, ["n", 3])})
    pinned = onnx_graph.pinned(model, {"x": (2, 3)})
    assert len({node.name for node in pinned.graph.node}) == 3
    assert [dim.dim_value for dim in pinned.graph.output[0].type.tensor_type.shape.dim] == [2, 3]
    assert [node.op_type for node in pinned.graph.node] == [node.op_type for node in model.graph.node]


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
    with pytest.raises(Unsupported, match=r"its weights lie in 'weights\.bin' beside it, which cannot be read"):
        source(path)
    weights = np.arange(15, dtype=np.float32).reshape(3, 5)
    weights.tofile(tmp_path / "weights.bin")
    found = source(path)
    asked = request(found, cases(found)[0].case, tmp_path)
    assert work.count(asked)["params"] == 15
    assert work.prepare(asked) == {"status": "ok"}
    saved = torch.load(asked["reference"], weights_only=True)
    torch.testing.assert_close(saved["expected"][0], saved["inputs"][0] @ torch.from_numpy(weights))
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
    (tmp_path / "empty.plan").write_bytes(b"")
    for name in (*(f"{each}.onnx" for each in (*contents, "folder", "missing")), "missing.plan", "empty.plan"):
        with pytest.raises(Unsupported, match=f"{name}: got") as caught:
            source(tmp_path / name)
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
        given.parse_shapes([text])


def test_shapes_may_be_listed_or_repeated_and_names_may_hold_colons():
    assert given.parse_shapes(["input:0:1x3", "a:2,b:3x4"]) == {"input:0": (1, 3), "a": (2,), "b": (3, 4)}
    assert given.parse_shapes([]) == {}
