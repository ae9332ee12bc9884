"""What engines do on a CUDA device. Skipped without one, or without TensorRT and pycuda. Never run on a GPU yet."""

import pytest

from gpu_probes import ask
from mixprof.machine.cuda_driver import compute_capability
from mixprof.metrics.accuracy import TOLERANCES
from mixprof.plan.settings import DTYPES

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("gpu")]

MIXERS = ["window_attention", "depthwise_conv", "dynamic_depthwise_conv", "inhomogeneous_depthwise_conv"]


@pytest.fixture
def probe(flavour, tmp_path):
    """Asks a probe about engines of one flavour, built into a cache of this test's own."""
    return lambda name, **arguments: ask(name, cache=tmp_path / "cache", **{"flavour": flavour, **arguments})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MIXERS)
def test_an_engine_agrees_with_the_reference_in_a_process_without_torchs_cuda(flavour, tmp_path, name, dtype):
    found = ask("output", cache=tmp_path / "cache", lowering=flavour, name=name, dtype=dtype)
    assert found["error"] < TOLERANCES[dtype]
    assert found["torch_cuda"] is False
    assert found["proof"]["source"] == "engine inspector"
    assert found["inspected"] == found["built"]
    assert found["proof"]["activation_bytes"] >= 0
    assert all(each > 0 for name, each in found["times"].items() if name.endswith("_ms"))


def test_float32_engines_do_without_tf32(flavour, tmp_path):
    if compute_capability(0) < (8, 0):
        pytest.skip("this device has no TF32")
    ask_for = {"lowering": flavour, "name": "window_attention"}
    exact = ask("output", cache=tmp_path / "exact", dtype="float32", **ask_for)
    assert exact["error"] < 1e-5


def test_activation_bytes_are_what_the_builder_said(flavour, tmp_path):
    found = ask("output", cache=tmp_path / "cache", lowering=flavour, name="window_attention", dtype="float16")
    said = found["built_activation_bytes"]
    if said is None:
        pytest.skip("this builder's log does not tell of activations")
    assert said <= found["proof"]["activation_bytes"] <= 2 * said + (1 << 20)


def test_a_read_finds_what_the_forward_writes_and_nothing_older(probe):
    found = probe("poison")
    assert found["values"] > 0
    assert found["written"] == 0


def test_the_inspectors_text_is_parsed_to_as_many_layers_as_the_builders_log(probe):
    found = probe("texts")
    assert found["parsed"] == found["built"] > 0
    assert found["counted"] in (None, found["parsed"])
    assert found["least_tensor"] > 0
    assert found["nodes"] > 0


def test_a_cuda_graph_of_an_engine_computes_the_same(probe):
    found = probe("captured")
    assert found["plain"]["hash"] == found["graphed"]["hash"]
    assert (found["plain"]["graph"], found["graphed"]["graph"]) == (False, True)
    assert found["difference"] == 0
    assert found["graphed"]["enqueue_ms"] < 1.5 * found["plain"]["enqueue_ms"]


def test_one_engine_takes_every_batch_of_its_profile_and_no_other(probe, flavour, tmp_path):
    found = probe("dynamic")
    assert set(found["errors"]) == {"1", "2", "4"}
    assert max(found["errors"].values()) < TOLERANCES["float16"]
    refused = ask("beyond", cache=tmp_path / "other", flavour=flavour)
    assert refused is not None
    assert refused["type"] == "Unsupported"
    assert "does not take" in refused["said"]


def test_everything_is_freed(probe):
    first, *later = probe("freed")["free"]
    assert first > 0
    assert len(set(later)) == 1, f"free after each runner: {later}"


def test_layers_take_as_long_as_the_engine(probe):
    found = probe("layers")
    total = sum(each for _, each in found["layers"])
    assert 0.7 * found["gpu_ms"] < total < 1.5 * found["gpu_ms"]
    names = [name for name, _ in found["layers"]]
    assert len(names) == len(set(names))
    assert set(names) & set(found["names"])
    assert "mixer" in found["roles"].values()


def test_an_engine_for_another_gpu_is_refused_with_a_reason(probe, flavour):
    major, minor = compute_capability(0)
    other = None
    if flavour == "tensorrt_rtx":
        other = "75" if (major, minor) != (7, 5) else "120"
    refused = probe("wrong_engine", other=other)
    assert refused is not None
    assert refused["type"] == "Unsupported"
    assert "does not take the engine" in refused["said"]
    assert "without a reason" not in refused["said"]


def test_a_device_without_memory_left_is_out_of_memory(probe):
    found = probe("without_memory")
    assert found is not None
    assert found["out_of_memory"], found["said"]


def test_a_cold_engine_is_slower_than_a_hot_one(probe):
    found = probe("modes")
    assert found["cold"] > 1.03 * found["hot"]


def test_the_flush_empties_the_l2_cache(probe):
    found = probe("flushed")
    assert found["flushed"] > 1.05 * found["warm"]
