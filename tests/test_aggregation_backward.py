"""The weighted sum's own backward against numerical derivatives and autograd in float64; what it keeps and makes."""

from __future__ import annotations

import pytest
import torch

from mixprof import models
from mixprof.machine.devices.cpu import Cpu
from mixprof.models.aggregation import matmul
from mixprof.models.aggregation_backward import Aggregate


@pytest.mark.parametrize(("images", "window"), [(2, 3), (1, 3), (2, 1)])
def test_its_gradients_are_those_of_numerical_differences(images, window):
    generator = torch.Generator().manual_seed(window)
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=generator).requires_grad_()
    weights = torch.randn(images, 3, 4, window**2, 2, dtype=torch.float64, generator=generator).requires_grad_()
    assert torch.autograd.gradcheck(lambda *given: Aggregate.apply(*given, window), (x, weights))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize(("height", "width", "window"), [(5, 9, 7), (2, 3, 5)])
def test_its_gradients_are_those_of_the_products_in_float64(height, width, window, dtype, tolerance):
    generator = torch.Generator().manual_seed(height)
    shapes = ((2, height, width, 64), (2, height, width, window**2, 32), (2, height, width, 64))
    x, weights, gradient = (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    own, right = ([each.clone().to(kind).requires_grad_() for each in (x, weights)] for kind in (dtype, torch.float64))
    got = torch.autograd.grad(Aggregate.apply(own[0], own[1], window), own, gradient)
    expected = torch.autograd.grad(matmul(right[0], right[1], window), right, gradient.double())
    for one, other in zip(got, expected, strict=True):
        assert (one.double() - other).abs().max() <= tolerance * other.abs().max()


def test_a_step_takes_at_most_twice_what_its_forward_does():
    """And the unfolded products of autograd take more than that."""
    x = torch.randn(1, 14, 14, 96, requires_grad=True)

    def peaks(name: str) -> tuple[int, int]:
        mixer = models.build(name, resolution=14).train()

        def forward() -> torch.Tensor:
            return mixer(x).square().mean()

        forward().backward()
        mixer.zero_grad(set_to_none=True)
        return Cpu().allocator_peak(forward), Cpu().allocator_peak(lambda: forward().backward())

    forward, step = peaks("inhomogeneous_depthwise_conv")
    assert step <= 2 * forward
    assert peaks("inhomogeneous_depthwise_conv:aggregation=matmul")[1] > 2 * step
