"""int8: what is quantized, on what, how right it is, and what an engine really runs in integers; planted faults."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

import mixprof
from mixprof import lowerings
from mixprof.data.case import Case
from mixprof.data.errors import Unsupported
from mixprof.lowerings import Target, quantize
from mixprof.lowerings.quantize import Calibration
from mixprof.metrics import Subject, accuracy
from mixprof.worker import calibration, launch
from onnx_files import mixprof as command

SHAPE = (1, 14, 14, 32)
ENGINES = ["onnxruntime", "openvino"]


def case(model="window_attention", channels: int | None = 32) -> Case:
    return Case(model, "onnxruntime", "cpu", "int8", "contiguous", "hot", 1, (14, 14), 7, channels)


def inputs(seed, count=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([accuracy.random_input(SHAPE, generator, images=False) for _ in range(count)])


def mixer(name="window_attention"):
    with torch.no_grad():
        module = mixprof.build(name, resolution=14, channels=32, lowering="onnxruntime").requires_grad_(False)
        accuracy.initialize(module, (inputs(0),), seed=0)
    return module


def lower(engine, module, folder, given="usual", **options):
    if given == "usual":
        given = Calibration({"x": inputs(1, 8)}, "1", "a test")
    target = Target("cpu", "int8", "contiguous", options, 1, folder, False, "key", engine, given)
    with torch.no_grad():
        return lowerings.lower(engine, module, (inputs(2),), target)


def subject(lowered, module):
    expected = module.double()(inputs(2).double())
    module.float()
    return Subject(case(), lowered, [expected], accuracy.TOLERANCES["int8"])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A module, and its int8 engine of each runtime."""
    pytest.importorskip("openvino")
    module, folder = mixer(), tmp_path_factory.mktemp("int8")
    return module, {engine: lower(engine, module, folder) for engine in ENGINES}, folder


@pytest.mark.parametrize("engine", ENGINES)
def test_all_products_of_an_attention_run_in_integers(made, engine):
    proof = made[1][engine].proof
    assert sum(proof["integer_products"].values()) == 4
    assert (proof["float_products"], proof["kept_in_float"]) == ([], [])


def test_every_engine_runs_one_file(made):
    assert len({lowered.proof["onnx_sha256"] for lowered in made[1].values()}) == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_its_noise_is_that_of_its_definition_and_passes(made, engine):
    checked = launch.check(subject(made[1][engine], made[0]))
    assert checked.status == "ok", checked.reason
    expected = made[0].double()(inputs(2).double()).numpy()
    made[0].float()
    output = made[1][engine].read().double().numpy()
    right = 10 * np.log10((expected**2).sum() / ((output - expected) ** 2).sum())
    assert checked.proof is not None
    assert checked.proof["sqnr_db"] == pytest.approx(right)
    assert 20 < right < 60  # 8 bits hold 50 dB of one tensor; several in a row lose some
    assert checked.relative_error <= 2 * checked.proof["graph_relative_error"] + 1e-4


def test_weights_are_symmetric_per_channel_and_activations_per_tensor(made):
    (path,) = made[2].glob("*.int8.onnx")
    model = onnx.load(str(path))
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    scales: dict[str, list[int]] = {"weights": [], "activations": []}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear":
            kind = "weights" if node.input[0] in constants else "activations"
            scales[kind].append(constants[node.input[1]].size)
            assert not constants[node.input[2]].any(), "a zero point"
    assert sorted(scales["weights"]) == [32, 96]  # the projection's channels, and queries, keys and values
    assert set(scales["activations"]) == {1}
    softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
    takers = {node.op_type for node in model.graph.node if softmax.input[0] in node.output}
    assert takers != {"DequantizeLinear"}  # it is fed with floats


def test_the_last_layer_of_a_classifier_stays_in_float(tmp_path):
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))
    x = torch.randn(2, 3, 8, 8)
    given = Calibration({"": torch.randn(8, 3, 8, 8)}, "2", "a test")
    target = Target("cpu", "int8", "contiguous", {}, 1, tmp_path, True, "key", "onnxruntime", given)
    with torch.no_grad():
        lowered = lowerings.lower("onnxruntime", module.requires_grad_(False), (x,), target)
    assert len(lowered.proof["kept_in_float"]) == 1
    assert (sum(lowered.proof["integer_products"].values()), lowered.proof["float_products"]) == (1, [])
    assert 0 <= lowered.proof["top1_agreement"] <= 1
    assert lowered.proof["calibration_batches"] == 4


def test_a_product_that_an_engine_runs_in_float_is_named(tmp_path):
    proof = lower("onnxruntime", mixer("dynamic_depthwise_conv"), tmp_path).proof
    assert len(proof["float_products"]) == 1  # the convolution whose kernels are predicted


def test_the_layer_that_is_kept_in_float_is_known_by_its_output_s_name_too():
    products = {"linear_51": ("gemm_mlas_f32", False), "linear_1": ("brgemm_i8", True), "add": ("gemm", False)}
    proof = quantize.executed(products, ["node_linear_51"], "openvino")
    assert (proof["integer_products"], proof["float_products"]) == ({"brgemm_i8": 1}, ["add"])


# Planted faults.


def test_a_quantizer_that_skips_the_mixer_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(
        quantize, "_quantize", lambda path, made, feeds, kept, dtype: made.write_bytes(path.read_bytes())
    )
    with pytest.raises(Unsupported, match="left 4 products in float: "):
        lower("onnxruntime", mixer(), tmp_path)


def test_a_calibration_of_zeros_is_refused(tmp_path):
    with pytest.raises(Unsupported, match="got one value throughout"):
        lower("onnxruntime", mixer(), tmp_path, Calibration({"x": torch.zeros(8, *SHAPE[1:])}, "3", "zeros"))


def test_a_calibration_that_is_far_too_small_is_inaccurate(tmp_path):
    module = mixer()
    lowered = lower("onnxruntime", module, tmp_path, Calibration({"x": 1e-3 * inputs(1, 8)}, "4", "small"))
    assert launch.check(subject(lowered, module)).status == "inaccurate"


def test_an_engine_that_runs_float_under_the_name_is_refused(tmp_path):
    with pytest.raises(Unsupported, match="float under the name int8"):
        lower("onnxruntime", mixer(), tmp_path, opt="disable")


def test_an_engine_further_from_its_graph_than_quantizing_costs_is_inaccurate(made):
    module, lowered = made[0], made[1]["onnxruntime"]
    right = lowered.read()
    wrong = replace(lowered, read_all=lambda: [right + 0.2 * right.abs().max() * torch.sign(right)])
    assert launch.check(subject(wrong, module)).status == "inaccurate"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "expected --calibration FILE.npz"),
        (Calibration({"x": torch.randn(8, 7, 7, 32)}, "5", "x"), "got 8x7x7x32 for input 'x', expected 1x14x14x32"),
        (Calibration({"x": torch.randn(8, 4), "y": torch.randn(8, 4)}, "6", "x"), "got 8x4 for input 'x'"),
        (Calibration({"y": inputs(1), "z": inputs(1)}, "7", "x"), "got y, z, expected an array for input 'x'"),
    ],
)
def test_what_is_no_calibration_is_said(tmp_path, given, message):
    with pytest.raises(Unsupported, match=message):
        lower("onnxruntime", mixer(), tmp_path, given)


def test_lowerings_without_int8_say_which_have_it(tmp_path):
    with pytest.raises(Unsupported, match="runs no int8: use --lowerings onnxruntime or openvino"):
        lower("eager", mixer(), tmp_path)


def test_a_folder_of_images_is_read_resized_and_normalized(tmp_path):
    from PIL import Image

    for shade in (0, 255):
        Image.new("RGB", (50, 40), (shade, shade, shade)).save(tmp_path / f"{shade}.png")
    (tmp_path / "notes.txt").write_text("no image")
    read = calibration.calibration(str(tmp_path), [torch.zeros(1, 3, 14, 14)], case("swin_t", None))
    assert read is not None
    assert read.arrays[""].shape == (2, 3, 14, 14)
    assert read.arrays[""][0, 0, 0, 0] == pytest.approx(-0.485 / 0.229)
    assert read.arrays[""][1, 2, 7, 7] == pytest.approx((1 - 0.406) / 0.225)


def test_random_is_drawn_only_where_asked_for_and_not_what_is_checked():
    assert calibration.calibration(None, [inputs(2)], case()) is None
    drawn = calibration.calibration("random", [inputs(2)], case())
    assert drawn is not None
    assert drawn.arrays[""].shape == (8, *SHAPE[1:])
    assert not any(torch.equal(one, inputs(2)[0]) for one in drawn.arrays[""])


def test_tensorrt_rtx_builds_integer_products(tmp_path, monkeypatch):
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setenv("MIXPROF_CACHE", str(tmp_path / "cache"))
    given = Calibration({"x": inputs(1, 4)}, "8", "a test")
    target = Target("cuda:0", "int8", "contiguous", {}, 1, tmp_path, False, "key", "tensorrt_rtx", given)
    with torch.no_grad():
        lowered = lowerings.lower("tensorrt_rtx", mixer("depthwise_conv"), (inputs(2),), target)
    assert sum(lowered.proof["integer_products"].values()) == 3
    assert lowered.proof["float_products"] == []


@pytest.mark.slow
def test_int8_is_swept_beside_float32_from_a_file(tmp_path):
    np.savez(tmp_path / "data.npz", x=inputs(1, 8).numpy())
    done = command(
        "sweep", "--models", "depthwise_conv", "--lowerings", "onnxruntime,openvino", "--dtypes", "float32,int8",
        "--resolutions", "14", "--channels", "32", "--calibration", "data.npz", "--out", "run", "--quick",
        "--seconds", "0.1", "--threads", "1", "--max-lost-cpu", "1", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = map(json.loads, (tmp_path / "run" / "records.jsonl").read_text().splitlines())
    records = {(r["case"]["model"], r["case"]["lowering"], r["case"]["dtype"]): r for r in rows}
    assert {record["status"] for record in records.values()} == {"ok"}, records
    proof = records["depthwise_conv", "openvino", "int8"]["proof"]
    assert proof["calibration"] == "data.npz"
    assert proof["sqnr_db"] > 15


def test_tensorrt_rtx_builds_fp8(tmp_path, monkeypatch):
    """Four products of an attention in float8, none in float; the graph's error is that of three bits of mantissa."""
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setenv("MIXPROF_CACHE", str(tmp_path / "cache"))
    given = Calibration({"x": inputs(1, 4)}, "8", "a test")
    target = Target("cuda:0", "fp8", "contiguous", {"sm": "89"}, 1, tmp_path, False, "key", "tensorrt_rtx", given)
    module = mixer()
    with torch.no_grad():
        lowered = lowerings.lower("tensorrt_rtx", module, (inputs(2),), target)
    assert sum(lowered.proof["fp8_products"].values()) == 4
    assert lowered.proof["float_products"] == []
    checked = launch._built(replace(subject(lowered, module), case=replace(case(), dtype="fp8", device="cuda:0")))
    assert checked.status == "built", checked.reason
    assert checked.proof is not None
    assert 2**-6 < checked.proof["onnx_relative_error"] < 0.25


def test_fp8_is_tensorrt_s(tmp_path):
    with pytest.raises(Unsupported, match="'openvino': runs no fp8: use --lowerings tensorrt or tensorrt_rtx"):
        lowerings.lower(
            "openvino",
            mixer(),
            (inputs(2),),
            Target("cpu", "fp8", "contiguous", {}, 1, tmp_path, False, "key", "openvino"),
        )
