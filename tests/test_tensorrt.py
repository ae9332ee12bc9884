"""Engines, built for real by TensorRT-RTX on a machine that need not have a GPU."""

import os
import random
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

import plain_mixers
from mixprof import lowerings, models
from mixprof.data import cache
from mixprof.data.errors import Unsupported, UsageError
from mixprof.lowerings import Target, is_installed
from mixprof.lowerings.onnx_graph import Graph
from mixprof.lowerings.tensorrt import profiles
from mixprof.lowerings.tensorrt.lower import lower
from mixprof.metrics import accuracy
from references import reference, relative_error

pytest.importorskip("tensorrt_rtx")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXPROF_CACHE", str(tmp_path / "cache"))


def target(tmp_path, dtype="float16", key="key", images=False, **options):
    folder = tmp_path / "run"
    folder.mkdir(exist_ok=True)
    return Target("cuda:0", dtype, "channels_last", options, 2, folder, images, key, "tensorrt_rtx")


def mixer(name, resolution=(14, 14), window=7, batch=1):
    """A mixer for TensorRT with the gate's weights, its input and the float64 reference."""
    module = models.build(name, resolution=resolution, window=window, channels=96).requires_grad_(False)
    x = accuracy.random_input((batch, *resolution, 96), torch.Generator().manual_seed(1), images=False).half().float()
    accuracy.initialize(module, (x[:1],), seed=2)
    module = module.half().float()
    copy = models.build(name, resolution=resolution, window=window, channels=96).requires_grad_(False)
    copy.load_state_dict(module.state_dict())
    expected = reference(copy, (x,))
    return models.specialize(module, "tensorrt_rtx"), x, expected


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("resolution", [(14, 14), (9, 11)])
@pytest.mark.parametrize(
    "name",
    ["window_attention:shifted=true", "depthwise_conv", "dynamic_depthwise_conv", "inhomogeneous_depthwise_conv"],
)
def test_the_exported_graph_is_right_and_its_engine_multiplies_in_half_precision(tmp_path, name, resolution, batch):
    module, x, expected = mixer(name, resolution, batch=batch)
    with torch.no_grad():
        lowered = lower(module, (x,), target(tmp_path))
    assert relative_error(lowered.read(), expected) < 2e-3
    assert lowered.proof["product_dtypes"] == ["Half"]
    assert lowered.proof["kernels"] == len(lowered.proof["layers"]) > 0
    assert lowered.artifact_bytes == lowered.proof["engine_bytes"] > lowered.proof["weights_bytes"]
    assert "mixer" in lowered.proof["roles"].values()


def test_attention_is_one_kernel_in_half_precision(tmp_path):
    module, x, _ = mixer("window_attention")
    with torch.no_grad():
        proof = lower(module, (x,), target(tmp_path)).proof
    assert proof["attentions"] == len(proof["fused_attentions"]) == 1


def test_the_inhomogeneous_convolution_never_makes_its_unfolded_tensor(tmp_path):
    module, x, _ = mixer("inhomogeneous_depthwise_conv", (56, 56))
    with torch.no_grad():
        proof = lower(module, (x,), target(tmp_path)).proof
    size, positions, taps, groups = 2, 56 * 56, 49, 32
    inputs = outputs = positions * 96 * size
    weights = positions * taps * groups * size  # one kernel for each position and group
    assert positions * 96 * taps * size > 1.5 * (inputs + weights + outputs)  # the unfolded tensor would not fit
    assert proof["intermediate_bytes"] < 1.5 * (inputs + weights + outputs)


def test_a_second_build_is_found_and_a_damaged_one_is_built_again_with_a_warning(tmp_path):
    module, x, _ = mixer("depthwise_conv")
    with torch.no_grad():
        first = lower(module, (x,), target(tmp_path))
        second = lower(module, (x,), target(tmp_path, key="another run"))
    assert (first.build_cached, second.build_cached) == (False, True)
    assert first.proof["engine_sha256"] == second.proof["engine_sha256"]
    (engine,) = (cache.folder() / "engines").glob(f"*/{cache.ENGINE}")
    engine.write_bytes(engine.read_bytes()[:-1])
    with torch.no_grad():
        third = lower(module, (x,), target(tmp_path))
        fourth = lower(module, (x,), target(tmp_path))
    assert third.build_cached is False
    assert "is damaged" in third.proof["warning"]
    assert (fourth.build_cached, "warning" in fourth.proof) == (True, False)


def test_what_a_killed_build_left_is_no_entry():
    cache.store("key", b"engine", {})
    (cache.folder() / "engines" / "key" / cache.PROOF).unlink()
    assert cache.fetch("key") == (None, None)


def test_a_cache_that_others_can_write_is_refused(tmp_path):
    cache.store("key", b"engine", {})
    (cache.folder() / "engines").chmod(0o777)
    with pytest.raises(UsageError, match="others own or can write"):
        cache.fetch("key")


def test_a_profile_out_of_order_or_for_nothing_is_refused():
    inputs = {"x": ("batch", 14, 14, 96)}
    good = ((1, 14, 14, 96), (2, 14, 14, 96), (4, 14, 14, 96))
    profiles.check_profile(inputs, {"x": good})
    with pytest.raises(Unsupported, match="rising order"):
        profiles.check_profile(inputs, {"x": good[::-1]})
    with pytest.raises(Unsupported, match="expected one of x"):
        profiles.check_profile(inputs, {"y": good})
    with pytest.raises(Unsupported, match="which the graph fixes at 14"):
        profiles.check_profile(inputs, {"x": ((1, 7, 14, 96), good[1], good[2])})
    with pytest.raises(UsageError, match="the least first"):
        lowerings.parse("tensorrt_rtx:dynamic:batches=8-1")


def test_a_batch_can_vary_within_a_profile(tmp_path):
    module, x, expected = mixer("depthwise_conv", batch=2)
    with torch.no_grad():
        lowered = lower(module, (x,), target(tmp_path, dynamic="", batches="1-8"))
    least, usual, most = next(iter(lowered.proof["profile"].values()))
    assert (least[0], usual[0], most[0]) == (1, 2, 8)
    assert relative_error(lowered.read(), expected) < 2e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "resolutions"),
    [
        ("depthwise_conv", (1, 9, 11, 96), "7-14"),
        ("conv", (1, 9, 11, 96), "7-14"),
        ("dwnet_t", (1, 3, 64, 96), "32-128"),
    ],
)
def test_the_resolution_can_vary_within_a_profile(tmp_path, name, size, resolutions):
    images = models.kind(name) == "network"
    sides = size[2:] if images else size[1:3]
    lowering = f"tensorrt_rtx:dynamic:resolutions={resolutions}"
    module = models.build(name, resolution=sides, window=7, lowering=lowering).requires_grad_(False)
    x = torch.randn(size, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = module(x)
        options = {"dynamic": "", "resolutions": resolutions}
        lowered = lower(module, (x,), target(tmp_path, dtype="float32", images=images, **options))
    least, _, most = next(iter(lowered.proof["profile"].values()))
    axis = 2 if images else 1
    assert f"{least[axis]}-{most[axis]}" == resolutions
    assert relative_error(lowered.read(), expected.double()) < 1e-5


def test_a_module_that_is_built_for_its_resolution_says_so():
    with pytest.raises(ValueError, match="WindowAttention is built for one resolution"):
        models.build("window_attention", resolution=14, lowering="tensorrt_rtx:dynamic:resolutions=7-14")


@pytest.mark.parametrize("name", [*plain_mixers.MIXERS, "linear_attention", "deformable_aggregation", "selective_scan"])
def test_every_mixer_multiplies_in_half_precision_alone(tmp_path, name):
    module, x, expected = mixer(name, (9, 11), 3)
    with torch.no_grad():
        lowered = lower(module, (x,), target(tmp_path))
    assert lowered.proof["product_dtypes"] == ["Half"]
    assert relative_error(lowered.read(), expected) < 2e-3


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("name", ["swin_t", "dwnet_t", "dynamic_dwnet_t", "i_dynamic_dwnet_t", "vit_s"])
def test_networks_of_odd_sizes_are_right_in_single_precision(tmp_path, name, batch):
    module = models.build(name, resolution=(45, 67), window=7).requires_grad_(False)
    x = accuracy.random_input((batch, 3, 45, 67), torch.Generator().manual_seed(1), images=True)
    accuracy.initialize(module, (x[:1],), seed=2)
    with torch.no_grad():
        expected = module(x).double()
        lowered = lower(models.specialize(module, "tensorrt_rtx"), (x,), target(tmp_path, "float32", images=True))
    assert relative_error(lowered.read(), expected[[0, -1]] if batch > 1 else expected) < 1e-5
    assert lowered.proof["product_dtypes"] == ["Float"]


BUILDS = """
import sys
from pathlib import Path
import torch, models
from mixprof.lowerings import Target, is_installed
from mixprof.lowerings.tensorrt.lower import lower
module = models.build("depthwise_conv", resolution=14, lowering="tensorrt_rtx").requires_grad_(False)
print("ready", flush=True)
for batch in range(1, 100):
    with torch.no_grad():
        lower(module, (torch.ones(batch, 14, 14, 96),), Target(
            "cuda:0", "float32", "channels_last", {}, 1, Path(sys.argv[1]), False, str(batch), "tensorrt_rtx"))
"""


@pytest.mark.slow
def test_a_build_killed_at_any_moment_leaves_no_damaged_entry(tmp_path):
    generator = random.Random(5)
    for _ in range(4):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen([sys.executable, "-c", BUILDS, tmp_path], stdout=subprocess.PIPE, env=environment)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        deadline = time.monotonic() + 120
        while not list((cache.folder() / "engines").glob("*/*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(3 * generator.random())
        process.kill()
        process.communicate()
    entries = list((cache.folder() / "engines").iterdir())
    found = [cache.fetch(entry.name) for entry in entries]
    assert [warning for _, warning in found if warning] == []
    assert len([entry for entry, _ in found if entry is not None]) >= 1


class Refused(nn.Module):
    """An operator that exports and that TensorRT's parser does not know."""

    def forward(self, x):
        return torch.linalg.det(x)[..., None, None] + x


def test_a_refused_operator_is_named(tmp_path):
    module, x = nn.Sequential(nn.Identity(), Refused()), torch.randn(2, 3, 3, 3)
    with torch.no_grad(), pytest.raises(Unsupported, match="Det"):
        lower(module, (x,), target(tmp_path, dtype="float32"))


def test_on_a_cpu_it_is_unsupported(tmp_path):
    with pytest.raises(Unsupported, match="--devices cuda:0"):
        lower(nn.Identity(), (torch.ones(1),), Target("cpu", "float32", "contiguous", {}, 1, tmp_path, False, "k", "x"))


@pytest.mark.skipif(is_installed("tensorrt") or not is_installed("tensorrt_rtx"), reason="needs RTX alone")
def test_full_tensorrt_is_unavailable_where_only_rtx_is_and_both_are_named():
    said = lowerings.missing("tensorrt")
    assert said is not None
    assert "pip install 'mixprof[tensorrt]'" in said
    assert "tensorrt_rtx is installed, another lowering" in said


def test_a_graph_knows_what_each_node_is_for(tmp_path):
    module = models.build("swin_t", resolution=32, lowering="tensorrt_rtx").requires_grad_(False)
    with torch.no_grad():
        lower(module, (torch.randn(1, 3, 32, 32),), target(tmp_path, dtype="float32", images=True))
    (path,) = (cache.folder() / "onnx").iterdir()
    assert path.stat().st_uid == os.getuid()
    graph = Graph.read(path.read_bytes())
    assert {"mixer", "mlp", "norm", "merge", "embed"} <= set(graph.roles.values())
