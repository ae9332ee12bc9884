"""The recurrence of selective_scan against a loop, and its operator as torch checks operators."""

import pytest
import torch
from torch import Tensor

from mixprof.metrics.flops import count
from mixprof.models import scan


def looped(decay: Tensor, drive: Tensor) -> Tensor:
    states = [drive[..., 0, :]]
    for place in range(1, decay.shape[-2]):
        states.append(decay[..., place, :] * states[-1] + drive[..., place, :])
    return torch.stack(states, dim=-2)


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 64, 65, 200])
@pytest.mark.parametrize("formulation", scan.FORMULATIONS)
def test_formulations_agree_with_a_loop(formulation: str, length: int):
    generator = torch.Generator().manual_seed(length)
    decay = torch.rand(2, 3, length, 5, generator=generator, dtype=torch.float64)
    decay[:, 0] = 1.0  # nothing is forgotten
    decay[:, 1, ::3] = 0.0  # all is
    drive = torch.randn(2, 3, length, 5, generator=generator, dtype=torch.float64)
    made = scan.FORMULATIONS[formulation](decay, drive)
    assert torch.allclose(made, looped(decay, drive), rtol=1e-12, atol=1e-12)


def operands(device: str = "cpu") -> list[Tensor]:
    torch.manual_seed(0)
    shapes = [(4, 1, 5, 3), (4, 1, 5, 3), (4, 3), (4, 1, 5, 1), (4, 1, 5, 1)]
    made = [torch.rand(shape, dtype=torch.float64, device=device) for shape in shapes]
    return [each.requires_grad_() for each in made]


def test_the_operator_is_one_that_torch_accepts():
    kinds = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(scan.selective_scan, tuple(operands()), test_utils=kinds)
    assert torch.autograd.gradcheck(scan.selective_scan, operands())


def test_a_state_and_its_readout_are_counted():
    counts = count(scan.selective_scan, *operands("meta"))
    assert (counts.macs, counts.vector_macs, counts.uncounted_ops) == (2 * 4 * 5 * 3, 2 * 4 * 5 * 3, ())
    counts = count(lambda *given: scan.selective_scan(*given).sum().backward(), *operands("meta"))
    assert (counts.macs, counts.uncounted_ops) == (3 * 2 * 4 * 5 * 3, ())
