"""Mixers against plain loops (plain_mixers.py), wrong variants, and closed forms of parameters and MACs."""

import copy
import functools
import math
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import plain_mixers as plain
import plain_newer_mixers as newer
from mixprof import models
from mixprof.models.mixers.spatial_reduction_attention import SpatialReductionAttention

SIZES = [(5, 7), (8, 8), (7, 7), (9, 6), (3, 3), (1, 4)]
LOWERINGS = ["eager", "compile", "onnxruntime", "tensorrt"]
WINDOWS = {name: [3, 5, 7] for name in plain.MIXERS}
WINDOWS |= {"window_attention": [2, 3, 4, 5, 7], "window_attention:shifted=true": [2, 3, 4, 5, 7]}
WINDOWS |= {name: [7] for name in ("global_attention", "spatial_reduction_attention", "pointwise_conv", "spatial_mlp")}
DYNAMIC = ("dynamic_depthwise_conv", "inhomogeneous_depthwise_conv")
GEOMETRIES = [
    (name, size, window, channels)
    for name, windows in WINDOWS.items()
    for size in SIZES
    for window in windows
    for channels in ([32, 64, 96] if name in DYNAMIC else [32, 64])
]
# Of the newer ones few geometries: their spatial layers are convolutions and products that are tested beside them.
WINDOWS |= {name: [3, 5] if "window" in models.accepts(name) else [7] for name in newer.NEWER}
GEOMETRIES += [
    (name, size, window, 64) for name in newer.NEWER for size in [(5, 7), (3, 3), (1, 4)] for window in WINDOWS[name]
]
# One geometry per mixer where every tensor and every axis matters: not square, not divided, several heads.
TYPICAL = [
    # Spatial reduction by 8: several keys only on a larger map.
    (name, (12, 17) if name == "spatial_reduction_attention" else (5, 7), 3 if 3 in windows else 7, 64)
    for name, windows in WINDOWS.items()
]
FORMULATIONS = [
    (name, option)
    for names, options in (
        (
            ["window_attention", "window_attention:shifted=true", "global_attention", "spatial_reduction_attention"],
            ["attention=explicit", "attention=sdpa"],
        ),
        (
            ["inhomogeneous_depthwise_conv", "local_mlp"],
            ["aggregation=matmul", "aggregation=shift", "aggregation=unfold_sum"],
        ),
        (["linear_attention"], ["attention=linear", "attention=quadratic"]),
        (["dynamic_large_kernel"], ["aggregation=matmul", "aggregation=shift", "aggregation=unfold_sum"]),
        (["selective_scan"], ["scan=chunked", "scan=doubling"]),
        (["deformable_aggregation"], ["aggregation=gather", "aggregation=grid_sample"]),
    )
    for name in names
    for option in options
]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Maps this small gain nothing from threads, and wait long for one another on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def randomise(module: nn.Module, seed: int) -> None:
    """Weights normal / sqrt(fan_in), everything else of unit scale, all of it representable in float32."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point():
            continue
        value = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        if name.endswith("running_var"):
            value = value.abs() + 0.5
        elif name == "weight" and tensor.dim() == 4:  # local_mlp: (H, W, taps, heads)
            value /= math.sqrt(tensor.shape[2])
        elif tensor.dim() > 1 and "relative_position" not in name:
            value /= math.sqrt(tensor[0].numel())
        elif name.endswith("weight"):  # of a norm
            value = 1 + value / 2
        tensor.copy_(value.float())


def expected_output(name: str, x: np.ndarray, state: plain.State, window: int) -> np.ndarray:
    if name == "window_attention:shifted=true":
        return plain.window_attention(x, state, window, shifted=True)
    return newer.EVERY[name](x, state, window)


def state_of(module: nn.Module) -> plain.State:
    return {name: tensor.double().numpy().copy() for name, tensor in module.state_dict().items()}


def random_input(size: tuple[int, int], channels: int) -> Tensor:
    """Two images that differ in their means too, as the kernels of an image follow its mean."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, *size, channels, generator=generator) + torch.randn(2, 1, 1, channels, generator=generator)
    return x.double()


@functools.cache
def case(name: str, size: tuple[int, int], window: int, channels: int) -> tuple[nn.Module, Tensor, np.ndarray]:
    """The published module in float64, its input, and the right output."""
    module = models.build(name, resolution=size, window=window, channels=channels).double()
    randomise(module, seed=window)
    x = random_input(size, channels)
    return module, x, expected_output(name, x.numpy(), state_of(module), window)


def run(module: nn.Module, x: Tensor) -> np.ndarray:
    with torch.inference_mode():
        return module(x).double().numpy()


def assert_agrees(module: nn.Module, x: Tensor, expected: np.ndarray) -> None:
    assert relative_error(run(module, x), expected) <= 1e-10
    assert relative_error(run(module.float(), x.float()), expected) <= 1e-5


def test_every_registered_mixer_has_a_plain_answer():
    assert {name for name in models.MODELS if models.kind(name) == "mixer"} == set(newer.EVERY)


@pytest.mark.parametrize(("name", "size", "window", "channels"), GEOMETRIES)
def test_published_formulation_agrees_with_loops(name, size, window, channels):
    module, x, expected = case(name, size, window, channels)
    assert_agrees(copy.deepcopy(module), x, expected)


@pytest.mark.parametrize("lowering", LOWERINGS)
@pytest.mark.parametrize(("name", "size", "window", "channels"), GEOMETRIES)
def test_specialised_formulation_agrees_with_loops(name, size, window, channels, lowering):
    module, x, expected = case(name, size, window, channels)
    assert_agrees(models.specialize(copy.deepcopy(module), lowering), x, expected)


@pytest.mark.parametrize(("name", "option"), FORMULATIONS)
def test_formulation_override_agrees_and_survives(name, option):
    _, size, window, channels = next(typical for typical in TYPICAL if typical[0] == name)
    published, x, expected = case(name, size, window, channels)
    module = models.build(f"{name}:{option}", resolution=size, window=window, channels=channels).double()
    module.load_state_dict(published.state_dict())
    assert option.partition("=")[2] in str(module.formulation)
    assert_agrees(copy.deepcopy(module), x, expected)
    for lowering in [*LOWERINGS, "compile:max-autotune", "tensorrt_rtx"]:
        specialised = models.specialize(copy.deepcopy(module), lowering)
        assert specialised.formulation == module.formulation
        assert_agrees(specialised, x, expected)


@pytest.mark.parametrize("stage", range(4))
@pytest.mark.parametrize("size", [*SIZES, (12, 17)])
def test_spatial_reduction_by_stage(size, stage):
    module = SpatialReductionAttention(64, size, 7, 2, stage=stage).eval().double()
    randomise(module, seed=stage)
    x = random_input(size, 64)
    expected = plain.spatial_reduction_attention(x.numpy(), state_of(module), 7, stage)
    assert_agrees(module, x, expected)


@pytest.mark.parametrize("layout", ["expanded", "transposed", "strided"])
@pytest.mark.parametrize(("name", "size", "window", "channels"), TYPICAL)
def test_input_of_any_strides(name, size, window, channels, layout):
    module, x, expected = case(name, size, window, channels)
    if layout == "expanded":
        x = x[:1].expand(2, -1, -1, -1)
        expected = expected[:1].repeat(2, axis=0)
    elif layout == "transposed":
        x = x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    else:
        x = x.repeat_interleave(2, dim=3)[..., ::2]
    assert relative_error(run(copy.deepcopy(module), x), expected) <= 1e-10


@pytest.mark.parametrize(("name", "size", "window", "channels"), TYPICAL)
def test_another_input_size_is_refused(name, size, window, channels):
    module, x, _ = case(name, size, window, channels)
    for wrong in (x[:, 1:], x[:, :, 1:], x.transpose(1, 2), x[..., :32]):
        with pytest.raises(ValueError, match=r"got|expected"):
            run(copy.deepcopy(module), wrong)


# ------------------------------------------------------------------------- wrong variants that must not go unseen


@pytest.mark.parametrize(("name", "size", "window", "channels"), TYPICAL)
def test_every_tensor_contributes(name, size, window, channels):
    """The plain answer without one of the parameters (a missing bias, norm or branch) is far from the module's."""
    module, x, _ = case(name, size, window, channels)
    state = state_of(module)
    got = run(copy.deepcopy(module), x)
    for missing in state:
        if not missing.endswith("num_batches_tracked"):
            wrong = expected_output(name, x.numpy(), state | {missing: np.zeros_like(state[missing])}, window)
            assert relative_error(wrong, got) > 1e-2, missing


def rearranged(tensor: str, arrange: Callable[[np.ndarray], np.ndarray]) -> Callable:
    """The plain mixer with one tensor's entries in another order."""

    def wrong(name: str, x: np.ndarray, state: plain.State, window: int) -> np.ndarray:
        changed = arrange(state[tensor]).reshape(state[tensor].shape)
        return expected_output(name, x, state | {tensor: changed}, window)

    return wrong


def transposed_taps(window: int, axis: int) -> Callable[[np.ndarray], np.ndarray]:
    """Exchange rows and columns of the K*K taps that the axis holds, as (anything, K, K) or alone."""

    def arrange(weight: np.ndarray) -> np.ndarray:
        shape = weight.shape
        weight = weight.reshape(*shape[:axis], -1, window, window, *shape[axis + 1 :])
        return weight.swapaxes(axis + 1, axis + 2)

    return arrange


def taps_before_channels(weight: np.ndarray) -> np.ndarray:
    """Generator outputs taken as (tap, kernel) instead of (kernel, tap)."""
    return weight.reshape(9, -1, *weight.shape[1:]).swapaxes(0, 1)


def another_image(function: Callable) -> Callable:
    return lambda name, x, state, window: function(x, state, window, kernel_of=lambda image: 1 - image)


def unmasked(name: str, x: np.ndarray, state: plain.State, window: int) -> np.ndarray:
    return plain.window_attention(x, state, window, shifted=True, axis_neighbours=plain.same_window_wrapped)


def unshifted(name: str, x: np.ndarray, state: plain.State, window: int) -> np.ndarray:
    return plain.window_attention(x, state, window)


def heads_interleaved(weight: np.ndarray) -> np.ndarray:
    """qkv taken as (heads, 3, d) instead of (3, heads, d)."""
    return weight.reshape(2, 3, plain.HEAD, -1).swapaxes(0, 1)


WRONG = {
    ("dynamic_depthwise_conv", "kernels of another image"): another_image(plain.dynamic_depthwise_conv),
    ("inhomogeneous_depthwise_conv", "kernels of another image"): another_image(plain.inhomogeneous_depthwise_conv),
    ("window_attention:shifted=true", "unmasked shift"): unmasked,
    ("window_attention:shifted=true", "no shift"): unshifted,
    ("window_attention", "bias of key - query"): rearranged("relative_position_bias_table", lambda table: table[::-1]),
    ("window_attention", "bias transposed"): rearranged(
        "relative_position_bias_table", lambda table: table.reshape(5, 5, 2).swapaxes(0, 1)
    ),
    ("window_attention", "heads before q, k, v"): rearranged("qkv.weight", heads_interleaved),
    ("global_attention", "heads before q, k, v"): rearranged("qkv.weight", heads_interleaved),
    ("spatial_reduction_attention", "taps transposed"): rearranged("sr.weight", lambda w: w.swapaxes(2, 3)),
    ("neighborhood_attention", "taps transposed"): rearranged("relative_position_bias", transposed_taps(3, axis=1)),
    ("conv", "taps transposed"): rearranged("conv.weight", lambda weight: weight.swapaxes(2, 3)),
    ("conv", "taps flipped"): rearranged("conv.weight", lambda weight: weight[:, :, ::-1, ::-1]),
    ("depthwise_conv", "taps transposed"): rearranged("conv.weight", lambda weight: weight.swapaxes(2, 3)),
    ("dynamic_depthwise_conv", "taps transposed"): rearranged("conv.conv2.weight", transposed_taps(3, axis=0)),
    ("dynamic_depthwise_conv", "taps before channels"): rearranged("conv.conv2.weight", taps_before_channels),
    ("inhomogeneous_depthwise_conv", "taps transposed"): rearranged("conv.conv2.0.weight", transposed_taps(3, axis=0)),
    ("inhomogeneous_depthwise_conv", "taps before groups"): rearranged("conv.conv2.0.weight", taps_before_channels),
    ("inhomogeneous_depthwise_conv", "groups interleaved"): rearranged(
        "conv0.weight", lambda weight: weight.reshape(2, 32, *weight.shape[1:]).swapaxes(0, 1)
    ),
    ("local_mlp", "taps transposed"): rearranged("weight", transposed_taps(3, axis=2)),
    ("local_mlp", "positions transposed"): rearranged("weight", lambda weight: weight.swapaxes(0, 1)),
    ("spatial_mlp", "columns as outputs"): rearranged("weight", lambda weight: weight.T),
    ("focal_modulation", "taps transposed"): rearranged("levels.2.weight", lambda weight: weight.swapaxes(2, 3)),
    ("focal_modulation", "gates in another order"): rearranged("gates.weight", lambda weight: weight[::-1]),
    ("split_depthwise_conv", "row flipped"): rearranged("row.weight", lambda weight: weight[..., ::-1]),
    ("linear_attention", "heads before q, k, v"): rearranged("qkv.weight", heads_interleaved),
    ("convnext", "taps transposed"): rearranged("dwconv.weight", lambda weight: weight.swapaxes(2, 3)),
    ("dynamic_large_kernel", "regions transposed"): rearranged(
        "kernel.weight", lambda weight: weight.reshape(9, 7, 7).swapaxes(1, 2)
    ),
    ("dynamic_large_kernel", "taps transposed"): rearranged("kernel.weight", transposed_taps(3, axis=0)),
    ("selective_scan", "another order of directions"): rearranged("rate", lambda rate: rate[::-1]),
    ("deformable_aggregation", "offsets as (y, x)"): rearranged(
        "offset_mask.weight",
        lambda weight: weight.reshape(2, 27, 64)[:, [*(n ^ 1 for n in range(18)), *range(18, 27)]],
    ),
}


@pytest.mark.parametrize(("name", "mistake"), WRONG)
def test_wrong_variant_is_far_away(name, mistake):
    _, size, window, channels = next(typical for typical in TYPICAL if typical[0] == name)
    module, x, _ = case(name, size, window, channels)
    wrong = WRONG[name, mistake](name, x.numpy(), state_of(module), window)
    assert relative_error(run(copy.deepcopy(module), x), wrong) > 1e-2


# ---------------------------------------------------------------------------------- counts, in closed form

# (parameters, MACs per image) of N positions, C channels, window K, G groups, h heads. N of a window counts padding.
COUNTS: dict[str, Callable[[int, int, int, int, int], tuple[int, int]]] = {
    "window_attention": lambda N, C, K, G, h: (
        4 * C**2 + 4 * C + (2 * K - 1) ** 2 * h,
        4 * N * C**2 + 2 * N * K**2 * C,
    ),
    "window_attention:shifted=true": lambda N, C, K, G, h: COUNTS["window_attention"](N, C, K, G, h),
    "global_attention": lambda N, C, K, G, h: (4 * C**2 + 4 * C, 4 * N * C**2 + 2 * N**2 * C),
    "neighborhood_attention": lambda N, C, K, G, h: (4 * C**2 + 4 * C + K**2 * h, 4 * N * C**2 + 2 * N * K**2 * C),
    "conv": lambda N, C, K, G, h: (K**2 * C**2 + C, N * K**2 * C**2),
    "pointwise_conv": lambda N, C, K, G, h: (C**2 + C, N * C**2),
    "depthwise_conv": lambda N, C, K, G, h: (2 * C**2 + K**2 * C + C + 6 * C, 2 * N * C**2 + N * K**2 * C),
    "dynamic_depthwise_conv": lambda N, C, K, G, h: (
        2 * C**2 + 6 * C + C**2 // 4 + C // 2 + C**2 // 4 * K**2 + C * K**2 + C,
        2 * N * C**2 + N * K**2 * C + C**2 // 4 + C**2 // 4 * K**2,
    ),
    "inhomogeneous_depthwise_conv": lambda N, C, K, G, h: (
        2 * C**2 + 6 * C + C**2 // 4 + C // 4 + C // 2 + C // 4 * K**2 * G + K**2 * G,
        2 * N * C**2 + N * K**2 * C + N * C**2 // 4 + N * (C // 4) * K**2 * G,
    ),
    "local_mlp": lambda N, C, K, G, h: (2 * C**2 + 2 * C + N * K**2 * h, 2 * N * C**2 + N * K**2 * C),
    "spatial_mlp": lambda N, C, K, G, h: (N**2 + N, N**2 * C),
    "focal_modulation": lambda N, C, K, G, h: (
        4 * C**2 + 4 * C + 4 * C + 4 + (9 + 25 + 49) * C,
        4 * N * C**2 + 4 * N * C + (9 + 25 + 49) * N * C,
    ),
    "split_depthwise_conv": lambda N, C, K, G, h: ((9 + 2 * K + 3) * C // 8, N * (9 + 2 * K) * C // 8),
    # Two products of N x 32 and 32 x 32 + 1 values per head, the last column for the sum of scores.
    "linear_attention": lambda N, C, K, G, h: (4 * C**2 + 4 * C, 4 * N * C**2 + 2 * N * 32 * 33 * h),
    "convnext": lambda N, C, K, G, h: (K**2 * C + C + 2 * C, N * K**2 * C),
    # 49 regions: their keys, their affinities, and the kernels of each head and position from those.
    "dynamic_large_kernel": lambda N, C, K, G, h: (
        3 * C**2 + 3 * C + 49 * K**2 + K**2,
        2 * N * C**2 + 49 * C**2 + 49 * N * C + 49 * N * h * K**2 + N * K**2 * C,
    ),
    # Steps of four directions by way of C/16 values each, the 3x3 convolution, and two products per state.
    "selective_scan": lambda N, C, K, G, h: (
        2 * C**2 + 10 * C + 2 * C * 4 * C // 16 + 8 * C + 3 * 4 * C + 2 * C,
        2 * N * C**2 + 9 * N * C + 2 * N * C * 4 * C // 16 + 8 * N * C + 2 * 4 * N * C,
    ),
    # Each of K^2 samples is a sum over four neighbours, weighted: 4 K^2 values meet each channel.
    "deformable_aggregation": lambda N, C, K, G, h: (
        2 * C**2 + 2 * C + 3 * K**2 * h * C + 3 * K**2 * h,
        2 * N * C**2 + 3 * N * K**2 * h * C + 4 * N * K**2 * C,
    ),
}
# 224 x 224: millions of MACs of a block's mixer, stages 1 to 4, for 96 and 128 channels at stage 1 (REFERENCE.md).
MIXER_MACS = {
    ("window_attention", 96): (145.1, 130.4, 123.0, 119.3),
    ("window_attention", 128): (244.9, 225.2, 215.4, 210.4),
    ("depthwise_conv", 96): (72.6, 65.2, 61.5, 59.6),
    ("depthwise_conv", 128): (122.4, 112.6, 107.7, 105.2),
    ("dynamic_depthwise_conv", 96): (72.7, 65.6, 63.3, 67.0),
    ("dynamic_depthwise_conv", 128): (122.6, 113.4, 111.0, 118.3),
    ("inhomogeneous_depthwise_conv", 96): (197.8, 131.4, 98.2, 81.6),
    ("inhomogeneous_depthwise_conv", 128): (292.6, 204.1, 159.9, 137.7),
}


def on_meta(name: str, resolution: tuple[int, int], window: int, channels: int) -> nn.Module:
    with torch.device("meta"):
        return models.build(name, resolution=resolution, window=window, channels=channels)


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def macs(module: nn.Module, batch: int, resolution: tuple[int, int], channels: int) -> int:
    x = torch.empty(batch, *resolution, channels, device="meta")
    with FlopCounterMode(display=False) as counter:
        module(x)
    return counter.get_total_flops() // 2


def test_closed_forms_cover_every_mixer():
    """All but spatial reduction, which depends on the stage and has a test of its own."""
    assert set(COUNTS) == set(WINDOWS) - {"spatial_reduction_attention"}


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_and_macs_follow_the_closed_form(name):
    draw = random.Random(name)
    for _ in range(20):
        resolution, batch = (draw.randint(1, 30), draw.randint(1, 30)), draw.randint(1, 3)
        window, heads = draw.choice([1, 3, 5, 7, 9]), draw.randint(1, 12)
        if name.startswith("window_attention"):
            window = draw.randint(2, 9)
        multiple = window if name.startswith("window_attention") else 1
        positions = math.prod(-(-side // multiple) * multiple for side in resolution)
        channels = 32 * heads
        module = on_meta(name, resolution, window, channels)
        expected = COUNTS[name](positions, channels, window, 32, heads)
        assert (parameters(module), macs(module, batch, resolution, channels)) == (expected[0], batch * expected[1])


# MACs of N positions and C channels that fvcore has no formula for: the steps' product with a bias, and the scan.
UNSEEN = {"selective_scan": lambda N, C: N * C**2 // 4 + 2 * 4 * N * C}


@pytest.mark.parametrize("name", newer.NEWER)
def test_fvcore_counts_the_same(name):
    found = FlopCountAnalysis(models.build(name, resolution=(5, 9), window=3, channels=64), torch.zeros(2, 5, 9, 64))
    by_operator = found.unsupported_ops_warnings(False).tracer_warnings("none").by_operator()
    seen = sum(by_operator[operator] for operator in ("conv", "linear", "matmul", "bmm"))
    expected = COUNTS[name](45, 64, 3, 32, 2)[1]
    assert seen + 2 * UNSEEN.get(name, lambda N, C: 0)(45, 64) == 2 * expected


@pytest.mark.parametrize("stage", range(4))
def test_spatial_reduction_follows_the_closed_form(stage):
    draw = random.Random(stage)
    reduction = plain.REDUCTIONS[stage]
    for _ in range(20):
        resolution, batch = (draw.randint(1, 60), draw.randint(1, 60)), draw.randint(1, 3)
        C = 32 * draw.randint(1, 12)
        N, M = math.prod(resolution), math.prod(-(-side // reduction) for side in resolution)  # queries, keys
        with torch.device("meta"):
            module = SpatialReductionAttention(C, resolution, 7, C // 32, stage=stage).eval()
        reduces = reduction > 1
        assert parameters(module) == 4 * C**2 + 4 * C + reduces * (reduction**2 * C**2 + 3 * C)
        expected = 2 * N * C**2 + 2 * M * C**2 + 2 * N * M * C + reduces * M * reduction**2 * C**2
        assert macs(module, batch, resolution, C) == batch * expected


@pytest.mark.parametrize(("name", "channels"), MIXER_MACS)
def test_macs_of_the_networks_mixers_are_the_published_ones(name, channels):
    found = []
    for stage in range(4):
        resolution, width = (56 >> stage, 56 >> stage), channels << stage
        found.append(macs(on_meta(name, resolution, 7, width), 1, resolution, width) / 1e6)
    assert tuple(round(value, 1) for value in found) == MIXER_MACS[name, channels]
