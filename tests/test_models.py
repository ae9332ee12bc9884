"""The registry, counts that the papers published, and every lowering's formulation against the published one."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import plain_mixers
from mixprof import models

# Parameters, and multiply-accumulates at batch 1, 224x224, 1000 classes (Swin and DWNet papers and checkpoints; DeiT).
COUNTS: dict[str, tuple[int, int | None]] = {
    "swin_t": (28_288_354, 4_490_566_656),
    "swin_s": (49_606_258, 8_740_875_264),
    "swin_b": (87_768_224, 15_430_946_816),
    "dwnet_t": (24_172_744, 3_726_862_848),
    "dwnet_b": (74_347_112, 12_812_261_376),
    "dynamic_dwnet_t": (51_131_752, 3_753_819_648),
    "dynamic_dwnet_b": (161_597_928, 12_899_506_176),
    "i_dynamic_dwnet_t": (26_244_280, 4_374_133_248),
    "i_dynamic_dwnet_b": (80_253_608, 14_340_020_224),
    "vit_s": (22_050_664, None),
    "vit_b": (86_567_656, None),
}
EVERY_MIXER = [name for name, entry in models.MODELS.items() if entry.kind == "mixer"]
MIXERS = list(plain_mixers.MIXERS)  # the newer ones go through as much in test_mixers.py and test_formulations.py
NETWORKS = [name for name, entry in models.MODELS.items() if entry.kind == "network"]
LOWERINGS = ["eager", "compile:max-autotune", "onnxruntime", "tensorrt", "tensorrt_rtx"]
VARIANTS = [*MIXERS, "window_attention:shifted=true"]
OVERRIDES = [
    f"{name}:{option}={value}"
    for name in VARIANTS
    for option, values in models.parse(name)[0].options.items()
    if option in ("attention", "aggregation")
    for value in values
]


def on_meta(name: str, **settings) -> nn.Module:
    with torch.device("meta"):
        return models.build(name, **settings)


def randomise(module: nn.Module) -> nn.Module:
    """Weights of 1/sqrt(fan in), random norms, biases and running statistics: every branch contributes."""
    torch.manual_seed(0)
    for name, tensor in module.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2.0)
        elif tensor.is_floating_point():
            bias_table = "relative_position" in name
            tensor.normal_(std=1.0 if tensor.dim() < 2 or bias_table else tensor[0].numel() ** -0.5)
        if name.endswith(("bn2.weight", "conv2.0.weight")):
            tensor.mul_(0.1)  # products of the map with itself, without a norm: twelve blocks would overflow float32
    return module


def example(name: str, resolution: tuple[int, int], batch: int = 2) -> Tensor:
    shape = (batch, *resolution, 96) if models.kind(name) == "mixer" else (batch, 3, *resolution)
    return torch.randn(shape, dtype=torch.float64)


@torch.no_grad()
def outputs(name: str, resolution: tuple[int, int], window: int, lowering: str) -> tuple[Tensor, Tensor, nn.Module]:
    """The published output and the specialised one, in float64, and the specialised module."""
    module = randomise(models.build(name, resolution=resolution, window=window, num_classes=10).double())
    x = example(name, resolution)
    expected = module(x)
    specialised = models.specialize(module, lowering)
    return expected, specialised(x), specialised


def error(got: Tensor, expected: Tensor) -> float:
    return ((got - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_are_the_published_count(name):
    assert sum(parameter.numel() for parameter in on_meta(name).parameters()) == COUNTS[name][0]


@pytest.mark.parametrize(("name", "macs"), [(name, macs) for name, (_, macs) in COUNTS.items() if macs is not None])
def test_multiply_accumulates_are_the_published_count(name, macs):
    with FlopCounterMode(display=False) as counter:
        on_meta(name)(torch.empty(1, 3, 224, 224, device="meta"))
    assert counter.get_total_flops() == 2 * macs


@pytest.mark.parametrize(
    ("mixer", "resolution"),
    [*((mixer, (45, 71)) for mixer in EVERY_MIXER), *((mixer, (32, 32)) for mixer in MIXERS)],
)
@pytest.mark.parametrize("family", ["swin_t", "dwnet_t"])
def test_every_mixer_fits_either_family(family, mixer, resolution):
    module = on_meta(f"{family}:mixer={mixer}", resolution=resolution, num_classes=5)
    assert module(torch.empty(2, 3, *resolution, device="meta")).shape == (2, 5)


@pytest.mark.parametrize(
    "name",
    [
        "swin_t:mixer=inhomogeneous_depthwise_conv",
        "dwnet_t:mixer=window_attention",
        "swin_t:mixer=selective_scan",
        "dwnet_t:mixer=deformable_aggregation",
    ],
)
def test_exchanged_mixer_runs_and_takes_either_layout(name):
    module, image = models.build(name, resolution=(45, 71), num_classes=5), torch.randn(2, 3, 45, 71)
    with torch.no_grad():
        contiguous, last = module(image), module(image.to(memory_format=torch.channels_last))
    assert contiguous.isfinite().all()
    assert error(last, contiguous) < 1e-4


@pytest.mark.parametrize("lowering", LOWERINGS)
@pytest.mark.parametrize("name", VARIANTS)
def test_specialised_mixer_equals_the_published(name, lowering):
    for resolution, window in (((9, 13), 7), ((4, 5), 3)):
        expected, got, module = outputs(name, resolution, window, lowering)
        assert error(got, expected) < 1e-10
        assert not any(isinstance(part, nn.BatchNorm2d) for part in module.modules())


@pytest.mark.parametrize("name", OVERRIDES)
def test_formulation_override_survives_and_is_equal(name):
    base, value = name.rsplit(":", 1)
    expected = outputs(base, (9, 13), 7, "eager")[0]
    published, specialised, module = outputs(name, (9, 13), 7, "eager")
    assert module.formulation == value.split("=")[1]
    assert max(error(published, expected), error(specialised, expected)) < 1e-10


@pytest.mark.parametrize(
    ("name", "lowering"),
    [
        ("swin_t", "eager"),
        ("dwnet_t", "tensorrt"),
        ("dynamic_dwnet_t", "compile"),
        ("i_dynamic_dwnet_t", "eager"),
        ("vit_s", "onnxruntime"),
    ],
)
def test_specialised_network_equals_the_published(name, lowering):
    expected, got, module = outputs(name, (45, 71), 7, lowering)
    assert error(got, expected) < 1e-10
    assert not any(isinstance(part, nn.BatchNorm2d) for part in module.modules())


@pytest.mark.parametrize("name", [*VARIANTS, "swin_t", "i_dynamic_dwnet_t"])
def test_float32_is_close_to_float64(name):
    resolution = (9, 13) if models.kind(name) == "mixer" else (45, 71)
    module = randomise(models.build(name, resolution=resolution, num_classes=10)).double()
    x = example(name, resolution)
    with torch.no_grad():
        expected = module(x)
        got = models.specialize(module.float(), "eager")(x.float())
    assert error(got.double(), expected) < 1e-5


@pytest.mark.parametrize("name", MIXERS)
def test_mixer_refuses_another_resolution(name):
    with pytest.raises(ValueError, match="expected"):
        on_meta(name, resolution=(9, 13))(torch.empty(1, 13, 9, 96, device="meta"))


def test_network_refuses_another_resolution():
    with pytest.raises(ValueError, match="build for this size"):
        on_meta("dwnet_t", resolution=64)(torch.empty(1, 3, 32, 32, device="meta"))


def test_build_with_lowering_is_build_then_specialize_and_works_on_meta():
    module = on_meta("i_dynamic_dwnet_t", resolution=64, lowering="eager")
    assert not any(isinstance(part, nn.BatchNorm2d) for part in module.modules())
    assert not module.training
    assert models.specialize(module, "eager:sdpa=flash") is module
    with pytest.raises(ValueError, match="specialized for 'eager'"):
        models.specialize(module, "tensorrt")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("swin", "got model 'swin', expected .*swin_t"),
        ("swin_t:mixr=conv", "got option of swin_t 'mixr', expected mixer"),
        ("swin_t:mixer=deptwise_conv", "got value of mixer 'deptwise_conv', expected .*depthwise_conv"),
        ("swin_t:attention=flash", "got value of attention 'flash', expected explicit or sdpa"),
        ("swin_t:mixer=conv:attention=sdpa", "got option of swin_t 'attention'"),
        ("conv:aggregation=shift", "got option of conv 'aggregation', expected none"),
        ("vit_s:mixer=conv", "got option of vit_s 'mixer'"),
        ("swin_t:mixer=conv:mixer=conv", "twice"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(name, message):
    with pytest.raises(ValueError, match=message) as caught:
        models.parse(name)
    assert "\n" not in str(caught.value)


def test_unknown_lowering_is_an_error():
    with pytest.raises(ValueError, match="got lowering 'eagr', expected one like eager"):
        models.build("conv", resolution=8, lowering="eagr")


@pytest.mark.parametrize(
    ("name", "axes"),
    [
        ("window_attention", {"resolution", "window", "channels"}),
        ("global_attention", {"resolution", "channels"}),
        ("pointwise_conv", {"resolution", "channels"}),
        ("swin_t", {"resolution", "window"}),
        ("swin_t:mixer=global_attention", {"resolution"}),
        ("vit_s", {"resolution"}),
    ],
)
def test_axes_that_a_model_has(name, axes):
    assert models.accepts(name) == axes


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("depthwise_conv", {"window": 6}, "odd"),
        ("swin_t:mixer=local_mlp", {"window": 4}, "odd"),
        ("window_attention", {"window": 0}, "at least 1"),
        ("swin_t", {"resolution": (31, 64)}, "at least 32"),
        ("conv", {"resolution": 0}, "at least 1"),
        ("conv", {"channels": 48}, "multiple of 32"),
        ("swin_t", {"channels": 96}, "a network has its own"),
    ],
)
def test_what_a_model_cannot_have_is_said_by_check_and_raised_by_build(name, values, reason):
    settings = {"resolution": 56, "window": 7, "channels": None, **values}
    assert reason in str(models.check(name, **settings))
    with pytest.raises(ValueError, match=reason):
        models.build(name, **settings)


@pytest.mark.parametrize("name", ["window_attention", "swin_t:mixer=window_attention", "global_attention", "vit_s"])
def test_even_windows_are_fine_without_a_centre(name):
    assert models.check(name, resolution=56, window=6, channels=None) is None


def test_importing_models_loads_no_torch():
    code = (
        "import sys, models; models.accepts('swin_t'); "
        "models.check('conv', resolution=8, window=6, channels=96); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_facts_of_a_model_follow_its_options():
    swin, exchanged = models.facts("swin_t"), models.facts("swin_t:mixer=local_mlp:aggregation=shift")
    assert swin["published"]["top1_percent"] == 81.3
    assert set(swin["compared_with"]) == {"dwnet_t", "swin_t:mixer=depthwise_conv"}
    assert set(swin["plain_formulations"]) == {"explicit", "baddbmm", "plain"}
    assert exchanged["published"] is None
    assert exchanged["compared_with"] == {}
    assert (exchanged["own_mixer"], exchanged["mixer"]) == ("window_attention", "local_mlp")
    own_kernels = {"cpp"}
    aggregations = set(models.parse("local_mlp")[0].options["aggregation"])
    assert set(exchanged["plain_formulations"]) == {"plain", *aggregations} - own_kernels
    assert set(models.facts("dwnet_t:mixer=window_attention")["compared_with"]) == {"dwnet_t"}


def test_formulations_that_run_and_have_no_kernel_are_said_to_be_plain():
    """spatial_mlp's product of matrices is one kernel, though an aggregation of the same name is none."""
    module = models.build("spatial_mlp", resolution=4, lowering="eager")
    assert module.formulation == "matmul"
    assert models.facts("spatial_mlp")["plain_formulations"] == {}
    assert "matmul" in models.facts("local_mlp")["plain_formulations"]


def test_every_comparison_is_between_models_that_exist():
    for name in models.MODELS:
        for other in models.facts(name)["compared_with"]:
            assert models.kind(other) == models.kind(name)
