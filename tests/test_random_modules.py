"""Random modules: what is counted of each is what hooks on its layers say."""

from __future__ import annotations

import pytest
import torch

import hook_macs
import random_modules
from mixprof.metrics import flops

SEEDS = range(random_modules.COUNT)


def image(seed: int) -> torch.Tensor:
    shape = (random_modules.BATCH, 3, random_modules.SIDE, random_modules.SIDE)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_counted_is_what_hooks_say(seed):
    module, x = random_modules.build(seed), image(seed)
    expected = hook_macs.count(module, x)
    with torch.inference_mode():
        counts = flops.count(module.to("meta"), x.to("meta"))
    assert (counts.macs, counts.uncounted_ops) == (expected, ())


def test_a_seed_is_always_the_same_module():
    first, second = (random_modules.build(text) for text in ("17", 17))
    assert str(first) == str(second)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
