"""Random modules: what is counted of each is what hooks on its layers say."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import hook_macs
import random_modules
from mixprof.data.case import Case
from mixprof.worker import counting

QUICK = 10  # of them; all take minutes
SEEDS = [pytest.param(seed, marks=[] if seed < QUICK else pytest.mark.slow) for seed in range(random_modules.COUNT)]

SOURCE: dict[str, Any] = {
    "factory": "random_modules:build",
    "accepts": [],
    "kind": "network",
    "specialize": None,
    "user": True,
}
SIDES = (random_modules.SIDE, random_modules.SIDE)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_counted_is_what_hooks_say(seed):
    """Through the count job of a worker, from the model's name with its option on."""
    module = random_modules.build(seed)
    expected = hook_macs.count(module, torch.randn(random_modules.BATCH, 3, *SIDES))
    case = Case(f"random_modules:build:seed={seed}", "eager", "cpu", "float32", "contiguous", "hot",
                random_modules.BATCH, SIDES, None, None)  # fmt: skip
    source = {**SOURCE, "arguments": {"seed": str(seed)}}
    counts = counting.count({"source": source, "case": case.to_json()})
    assert (counts["macs"], counts["uncounted_ops"]) == (expected, [])
    assert counts["params"] == sum(parameter.numel() for parameter in module.parameters())


def test_a_seed_is_always_the_same_module():
    first, second = (random_modules.build(text) for text in ("17", 17))
    assert str(first) == str(second)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
