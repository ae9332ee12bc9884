"""Folded layers against the same layers unfolded, in float64 and in the float32 they would run in."""

import pytest
import torch
from torch import nn

from mixprof.models.folding import affine, as_linear, fold_after, fold_before


def random_norm(channels: int) -> nn.BatchNorm2d:
    """An eval-mode batch norm whose statistics and weights, negative ones too, all matter."""
    norm = nn.BatchNorm2d(channels).eval()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.2, 3.0)
    return norm


def error(got: torch.Tensor, expected: torch.Tensor) -> float:
    return ((got - expected).abs().max() / expected.abs().max()).item()


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 8], ids=["dense", "depthwise"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
def test_convolution_then_norm_stays_exact_at_the_zero_padded_border(bias, groups, dtype, tolerance):
    conv, norm = nn.Conv2d(8, 8, 5, padding=2, groups=groups, bias=bias).double(), random_norm(8).double()
    x = torch.randn(2, 8, 6, 7, dtype=torch.float64)
    expected = norm(conv(x))
    conv.to(dtype)
    fold_after(conv, norm)
    assert conv.weight.dtype == dtype
    assert error(conv(x.to(dtype)).double(), expected) < tolerance


@pytest.mark.parametrize("bias", [True, False])
def test_linear_then_norm(bias):
    linear, norm = nn.Linear(6, 8, bias=bias).double(), random_norm(8).double()
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    expected = norm(linear(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    fold_after(linear, norm)
    assert error(linear(x), expected) < 1e-13


@pytest.mark.parametrize("bias", [True, False])
def test_norm_then_linear(bias):
    norm, linear = random_norm(6).double(), nn.Linear(6, 8, bias=bias).double()
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    expected = linear(norm(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
    fold_before(norm, linear)
    assert error(linear(x), expected) < 1e-13


def test_affine_is_the_norm():
    norm = random_norm(4).double()
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    scale, shift = affine(norm)
    assert error(x * scale[:, None, None] + shift[:, None, None], norm(x)) < 1e-13


def test_repeat_scales_the_taps_of_a_predicted_kernel_without_shifting_them():
    generator, norm, taps = nn.Conv2d(3, 4 * 9, 1).double(), random_norm(4).double(), 9
    x = torch.randn(2, 3, 1, 1, dtype=torch.float64)
    scale = affine(norm)[0]
    expected = generator(x).view(2, 4, taps) * scale[:, None]
    fold_after(generator, norm, repeat=taps)
    assert error(generator(x).view(2, 4, taps), expected) < 1e-13


def test_half_precision_is_rounded_once():
    conv, norm = nn.Conv2d(4, 4, 1, bias=False), random_norm(4)
    scale = affine(norm)[0]
    half = conv.half().weight.double() * scale[:, None, None, None]
    fold_after(conv, norm)
    assert torch.equal(conv.weight, half.half())


def test_pointwise_convolution_is_a_linear_over_channels():
    conv = nn.Conv2d(6, 8, 1)
    x = torch.randn(2, 4, 5, 6)
    assert error(as_linear(conv)(x), conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)) < 1e-6


def test_what_cannot_be_folded_is_an_error():
    with pytest.raises(ValueError, match="expected a BatchNorm2d"):
        affine(nn.Identity())
    with pytest.raises(ValueError, match="expected a BatchNorm2d"):
        affine(nn.BatchNorm2d(4, track_running_stats=False))
    with pytest.raises(ValueError, match="1x1"):
        as_linear(nn.Conv2d(4, 4, 3))
