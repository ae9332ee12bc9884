"""OpenVINO as a lowering: right against float64, what it really ran read back, no copies, no silent exchange."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

import mixprof
import plain_mixers
from mixprof import lowerings
from mixprof.data.errors import Unsupported
from mixprof.lowerings import Target
from mixprof.metrics import accuracy
from onnx_files import mixprof as command
from references import relative_error

openvino = pytest.importorskip("openvino")
NEWER = ["deformable_aggregation", "selective_scan"]  # with operators that the others have not: docs/mixers.md has all
MIXERS = [*plain_mixers.MIXERS, *NEWER]


def lower(module, inputs, folder, dtype="float32", threads=1, **options):
    target = Target("cpu", dtype, "contiguous", options, threads, folder, False, "key", "openvino")
    with torch.no_grad():
        return lowerings.lower("openvino", module, inputs, target)


def mixer(name):
    with torch.no_grad():
        module = mixprof.build(name, resolution=14, channels=64, lowering="onnxruntime")
        x = accuracy.random_input((1, 14, 14, 64), torch.Generator().manual_seed(0), images=False)
        accuracy.initialize(module, (x,), seed=0)
    return module, x


@pytest.fixture(scope="module")
def lowered(tmp_path_factory):
    module, x = mixer("window_attention")
    return module, x, lower(module, (x,), tmp_path_factory.mktemp("openvino"))


@pytest.mark.parametrize("name", MIXERS)
def test_every_mixer_is_right_against_float64_and_its_products_in_float32(name, tmp_path):
    module, x = mixer(name)
    lowered = lower(module, (x,), tmp_path)
    expected = module.requires_grad_(False).double()(x.double())
    assert relative_error(lowered.read(), expected) < 1e-5
    assert lowered.proof["product_dtypes"] == ["float32"]
    assert (lowered.proof["precision"], lowered.proof["threads"], lowered.proof["streams"]) == ("float32", 1, 1)


def test_the_products_of_an_attention_are_all_found_and_named_by_their_onnx_nodes(lowered):
    proof = lowered[2].proof
    assert sum(proof["products"].values()) == 4  # two projections, queries by keys, weights by values
    assert proof["layer_kinds"]["Softmax"] == 1
    roles = [proof["roles"][layer["name"]] for layer in proof["layers"] if layer["kind"] in ("MatMul", "Softmax")]
    assert roles == ["mixer"] * 3
    assert proof["kernels"] == len(proof["layers"])


def test_inputs_are_read_where_they_lie(lowered):
    module, x, engine = lowered
    before = engine.read().clone()
    with torch.no_grad():
        x.mul_(2.0)
        expected = module(x)
        after = engine.read()
        x.div_(2.0)
    assert not torch.allclose(before, after)
    assert torch.allclose(after, expected, atol=1e-5)


def test_layers_are_timed_under_the_names_of_the_proof(lowered):
    _, _, engine = lowered
    times = dict(engine.layer_times(3))
    assert all(ms > 0 for ms in times.values())
    products = {layer["name"] for layer in engine.proof["layers"] if layer["kind"] in ("MatMul", "FullyConnected")}
    assert products <= set(times)


def has_bfloat16():
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.mark.skipif(not has_bfloat16(), reason="this CPU has no bfloat16")
def test_bfloat16_is_computed_in_it_and_float16_is_refused_where_it_would_be(tmp_path):
    module, x = mixer("depthwise_conv")
    expected = module.requires_grad_(False).double()(x.double())
    module.float()
    half = lower(module, (x,), tmp_path, "bfloat16")
    assert half.proof["product_dtypes"] == ["bfloat16"]
    assert 1e-4 < relative_error(half.read(), expected) < accuracy.TOLERANCES["bfloat16"]
    with pytest.raises(Unsupported, match="this CPU would compute in bfloat16"):
        lower(module, (x,), tmp_path, "float16")
    assert lower(module, (x,), tmp_path, "float32", precision="device").proof["precision"] == "bfloat16"


@pytest.mark.skipif(not has_bfloat16(), reason="this CPU has no bfloat16")
def test_products_that_stay_in_float32_are_not_passed_off_as_bfloat16(tmp_path):
    """OpenVINO leaves the product of a spatial MLP, a weight on its left, in float32 whatever it is asked for."""
    module, x = mixer("spatial_mlp")
    with pytest.raises(Unsupported, match="got bfloat16, and its products all run in float32"):
        lower(module, (x,), tmp_path, "bfloat16")


def test_streams_are_read_back_and_too_few_threads_for_them_refused(tmp_path):
    module, x = mixer("depthwise_conv")
    assert lower(module, (x,), tmp_path, threads=2, streams="2").proof["streams"] == 2
    with pytest.raises(Unsupported, match="use --threads"):
        lower(module, (x,), tmp_path, threads=1, streams="2")


class Refused(nn.Module):
    def forward(self, x):
        return torch.linalg.svdvals(x[0, 0])


def test_what_cannot_be_exported_is_said_in_one_line(tmp_path):
    with pytest.raises(Unsupported) as caught:
        lower(Refused(), (torch.randn(1, 3, 8, 8),), tmp_path)
    words = "torch.onnx.export: operator aten._linalg_svd has no form in ONNX"
    assert str(caught.value) == words
    with pytest.raises(Unsupported) as caught:
        lower(nn.Sequential(nn.ReLU(), nn.Sequential(Refused())), (torch.randn(1, 3, 8, 8),), tmp_path)
    assert str(caught.value) == f"{words}: module '1.0' (Refused) calls it"


@pytest.mark.slow
def test_a_file_is_swept_beside_onnxruntime_with_its_layers(tmp_path):
    from mixprof.lowerings.onnx_export import export

    module, x = mixer("window_attention")
    with torch.no_grad():
        export(module, (x,), tmp_path / "net.onnx")
    done = command(
        "sweep", "--models", "net.onnx", "--lowerings", "onnxruntime,openvino", "--layers", "--out", "run",
        "--quick", "--threads", "1", "--max-lost-cpu", "1", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = map(json.loads, (tmp_path / "run" / "records.jsonl").read_text().splitlines())
    record = next(r for r in rows if (r["case"]["model"], r["case"]["lowering"]) == ("net.onnx", "openvino"))
    assert (record["status"], record["proof"]["product_dtypes"]) == ("ok", ["float32"])
    assert record["proof"]["role_ms"]["mixer"] > 0


def test_a_missing_package_is_one_line_with_its_command():
    code = "import sys; sys.modules['openvino'] = None; import importlib.util as u; f = u.find_spec\n" \
           "u.find_spec = lambda name, *more: None if name == 'openvino' else f(name, *more)\n" \
           "from mixprof import lowerings; print(lowerings.missing('openvino'))"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "lowering 'openvino': openvino is not installed: pip install 'mixprof[openvino]'\n"
