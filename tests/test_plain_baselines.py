"""The plain formulations that bench_mixers.py holds ours against compute what ours do."""

import sys
from pathlib import Path

import pytest
import torch

from mixprof import models

sys.path.append(str(Path(__file__).parents[1] / "scripts" / "proofs"))
import plain_formulations

MIXERS = [name for name, entry in models.MODELS.items() if entry.kind == "mixer"]


@pytest.mark.parametrize("name", MIXERS)
@torch.no_grad()
def test_a_plain_mixer_is_ours_in_value(name):
    torch.manual_seed(0)
    window = 8 if name == "window_attention" else 7
    plain = plain_formulations.build(name, 16, window, 64).eval().double()
    for tensor in [*plain.parameters(), *plain.buffers()]:
        if tensor.is_floating_point():
            tensor.copy_(0.5 + torch.rand_like(tensor) if tensor.dim() == 1 else torch.randn_like(tensor) / 8)
    ours = models.build(name, resolution=16, window=window, channels=64).double()
    models.load_published(ours, plain.state_dict())
    x = torch.randn(2, 16, 16, 64, dtype=torch.float64)
    expected = plain(x)
    assert (ours(x) - expected).abs().max() < 1e-10 * expected.abs().max()
