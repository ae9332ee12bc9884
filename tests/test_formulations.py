"""Formulations: equal in value, chosen by measurement, the same for every launch of a case."""

import pytest
import torch

from mixprof import models
from mixprof.models import registry
from mixprof.models.specialization import LOWERINGS, formulations_in, parts_of

MIXERS = [name for name, entry in models.MODELS.items() if entry.kind == "mixer" and entry.formulations]
FORMULATIONS = [(name, one) for name in MIXERS for one in models.MODELS[name].formulations]


def published_and_input(name: str, seed: int = 0) -> tuple[torch.nn.Module, torch.Tensor]:
    """A mixer in float64 with weights that all matter, and a map that no window divides."""
    torch.manual_seed(seed)
    module = models.build(name, resolution=(9, 13), window=7, channels=64).double()
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(0.5 + torch.rand_like(tensor) if tensor.dim() == 1 else torch.randn_like(tensor) / 8)
    return module, torch.randn(2, 9, 13, 64, dtype=torch.float64)


@pytest.mark.parametrize("lowering", LOWERINGS[:2])
@pytest.mark.parametrize(("name", "formulation"), FORMULATIONS)
@torch.no_grad()
def test_every_formulation_is_equal_in_value(name, formulation, lowering):
    module, x = published_and_input(name)
    expected = module(x)
    chosen = models.specialize(module, lowering, {"": formulation})
    assert formulations_in(chosen) == [formulation]
    assert (chosen(x) - expected).abs().max() < 1e-10 * expected.abs().max()


@pytest.mark.parametrize("formulation", ["explicit+1x1", "sdpa", "plain"])
def test_the_option_pins_every_part_of_a_network(formulation):
    network = models.build(f"swin_t:formulation={formulation}", resolution=64, lowering="eager")
    linear = "linear+1x1" if formulation.endswith("+1x1") else "linear"
    assert formulations_in(network) == sorted([formulation, linear])


def test_a_network_offers_its_mixers_and_what_else_has_a_choice():
    parts = parts_of(models.build("dwnet_t", resolution=64))
    kinds = {type(part).__name__ for part in parts.values()}
    assert kinds == {"DepthwiseConv", "Mlp", "PatchMerging"}
    assert len(parts) == 2 * sum((2, 2, 6, 2)) + 3


def test_plain_is_always_among_them():
    assert all(registry.PUBLISHED in models.MODELS[name].formulations for name in MIXERS)
