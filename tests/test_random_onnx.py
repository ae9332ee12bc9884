"""Random modules as ONNX files: what is counted of each export is what hooks on its layers say.

One difference is known: torch.onnx unrolls nn.RNN and leaves out the product with its first state, which is zero.
"""

from __future__ import annotations

import onnx
import pytest
import torch
from torch import nn

import hook_macs
import random_modules
from mixprof.lowerings.onnx_export import export
from mixprof.metrics import onnx_macs

LONG = {3, 4, 13}  # an RNN of 256 steps is thousands of nodes: minutes
SEEDS = [*(seed for seed in range(18) if seed not in LONG), 47, 50, 78]


def first_products(module, x):
    """MACs of the products with a zero state that unrolled recurrent layers do not do."""
    macs = []

    def note(layer, given, made):
        directions = 2 if layer.bidirectional else 1
        macs.append(layer.num_layers * directions * random_modules.BATCH * layer.hidden_size**2)

    hooks = [layer.register_forward_hook(note) for layer in module.modules() if type(layer) is nn.RNN]
    module(x)
    for hook in hooks:
        hook.remove()
    return sum(macs)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_counted_of_an_export_is_what_hooks_say(seed, tmp_path):
    shape = (random_modules.BATCH, 3, random_modules.SIDE, random_modules.SIDE)
    module, x = random_modules.build(seed), torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        export(module, (x,), tmp_path / "net.onnx")
        expected = hook_macs.count(module, x) - first_products(module, x)
    counts = onnx_macs.count(onnx.load(str(tmp_path / "net.onnx")))
    assert (counts.macs, counts.uncounted_ops) == (expected, ())
