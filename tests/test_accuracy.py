"""The accuracy gate: right outputs pass in every dtype, wrong variants do not, in any."""

import copy
from types import FunctionType

import pytest
import torch
from torch import nn

from mixprof import models
from mixprof.metrics import accuracy
from references import reference, relative_error

DTYPES = {"float32": torch.float32, "tf32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
CASES = [("window_attention:shifted=true", 7), ("depthwise_conv", 7), ("dynamic_depthwise_conv", 7),
         ("inhomogeneous_depthwise_conv", 5), ("local_mlp", 3), ("neighborhood_attention", 3)]  # fmt: skip
NEWER = [("focal_modulation", 7, None), ("split_depthwise_conv", 7, None), ("linear_attention", 7, "eager"),
         ("convnext", 7, None), ("dynamic_large_kernel", 5, "eager"), ("deformable_aggregation", 3, None),
         ("deformable_aggregation", 3, "eager"), ("selective_scan", 7, "eager")]  # fmt: skip


def prepared(name, window, batch=3):
    """A mixer with the gate's weights, its inputs, and the reference of first and last image."""
    module = models.build(name, resolution=(9, 11), window=window, channels=64).requires_grad_(False)
    x = accuracy.random_input((batch, 9, 11, 64), torch.Generator().manual_seed(1), images=False)
    accuracy.initialize(module, (x[:1],), seed=2)
    expected = reference(copy.deepcopy(module), (x,))
    return module, x, expected


def output(module, x, dtype):
    with torch.inference_mode():
        return copy.deepcopy(module).to(dtype)(x.to(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "window", "lowering"),
    [*((*case, lowering) for case in CASES for lowering in (None, "eager", "onnxruntime")), *NEWER],
)
def test_the_right_output_passes_in_every_dtype(name, window, lowering, dtype):
    module, x, expected = prepared(name, window)
    if lowering is not None:
        module = models.specialize(module, lowering)
    error = relative_error(output(module, x, DTYPES[dtype]), expected)
    assert error <= accuracy.TOLERANCES[dtype]


def another_images_kernels(module, x):
    """Every image convolved with the kernels that the first one predicts."""
    reduce = module.conv.conv1
    reduce = reduce[0] if isinstance(reduce, nn.Sequential) else reduce
    reduce.register_forward_hook(lambda _, __, y: y[:1].expand_as(y))
    return module(x)


def without_bias(module, x):
    with torch.no_grad():
        (module.proj if hasattr(module, "proj") else module.conv).bias.zero_()
    return module(x)


def unmasked_shift(module, x):
    rolled = torch.roll(x, (-3, -3), (1, 2))
    plain = models.build("window_attention", resolution=(9, 11), window=7, channels=64)
    plain.load_state_dict(module.state_dict())
    return torch.roll(plain.to(x.dtype)(rolled), (3, 3), (1, 2))


def transposed_taps(module, x):
    with torch.no_grad():
        module.conv.weight.copy_(module.conv.weight.transpose(2, 3).clone())
    return module(x)


def unnormalized(module, x):
    with torch.no_grad():
        module.bn.running_mean.zero_()
    return module(x)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["swin_t", "i_dynamic_dwnet_t", "vit_s"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_whole_networks_pass_with_room(name, dtype):
    module = models.build(name, resolution=32).requires_grad_(False)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(4)).to(DTYPES[dtype]).float()
    accuracy.initialize(module, (x[:1],), seed=5)
    rounded = {name: value.to(DTYPES[dtype]).float() if value.is_floating_point() else value
               for name, value in module.state_dict().items()}  # fmt: skip
    module.load_state_dict(rounded)
    expected = reference(copy.deepcopy(module), (x,))
    found = output(models.specialize(module, "eager"), x, DTYPES[dtype])
    assert relative_error(found, expected) < accuracy.TOLERANCES[dtype] / 2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("dynamic_depthwise_conv", another_images_kernels),
        ("inhomogeneous_depthwise_conv", another_images_kernels),
        ("window_attention:shifted=true", without_bias),
        ("depthwise_conv", without_bias),
        ("window_attention:shifted=true", unmasked_shift),
        ("depthwise_conv", transposed_taps),
        ("depthwise_conv", unnormalized),
    ],
)
def test_a_wrong_variant_fails_in_every_dtype(name, wrong, dtype):
    module, x, expected = prepared(name, 7)
    module = module.to(DTYPES[dtype])
    with torch.inference_mode():
        found = wrong(module, x.to(DTYPES[dtype]))
    error = relative_error(found, expected)
    assert error > 2 * accuracy.TOLERANCES[dtype]
    assert error > 0.1


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_nan_and_infinity_never_pass(bad):
    expected = torch.ones(2, 3, dtype=torch.float64)
    found = torch.ones(2, 3)
    found[1, 2] = bad
    assert relative_error(found, expected) == float("inf")
    assert relative_error(torch.ones(2, 4), expected) == float("inf")


def test_the_error_is_the_largest_difference_over_the_largest_value():
    expected = torch.tensor([[1.0, -4.0], [2.0, 0.0]], dtype=torch.float64)
    found = torch.tensor([[1.0, -4.0], [9.0, 9.0], [2.0, 0.5]])  # the image in the middle is not compared
    assert relative_error(found, expected) == pytest.approx(0.5 / 4.0)


def test_initialization_gives_every_layer_an_output_of_unit_scale_and_is_repeatable():
    module = models.build("swin_t", resolution=64)
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    accuracy.initialize(module, (x,), seed=3)
    deviations = []
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            layer.register_forward_hook(lambda _, __, y: deviations.append(float(y.std())))
    with torch.inference_mode():
        module(x)
    assert all(0.99 < each < 1.01 for each in deviations)
    again = models.build("swin_t", resolution=64)
    accuracy.initialize(again, (x,), seed=3)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), again.parameters(), strict=True))


def test_a_lowerings_own_buffer_is_poisoned_before_it_is_read(tmp_path):
    from mixprof.lowerings import Target
    from mixprof.lowerings.onnxruntime import lower

    module = nn.Linear(32, 32).requires_grad_(False)
    x = torch.randn(2, 3, 3, 32)
    lowered = lower(module, (x,), Target("cpu", "float32", "contiguous", {}, 1, tmp_path, False, "key"))
    first = lowered.read().clone()
    assert torch.allclose(first, module(x), atol=1e-5)
    # Without its run, what the last one left must not pass for an output.
    read_all = lowered.read_all
    assert isinstance(read_all, FunctionType)
    cells = dict(zip(read_all.__code__.co_freevars, read_all.__closure__ or (), strict=True))
    cells["run"].cell_contents = lambda: None
    assert relative_error(lowered.read(), first.double()) == float("inf")
