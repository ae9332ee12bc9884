"""Inputs that cases are fed with."""

import pytest
import torch
from torch.nn.functional import cosine_similarity

import mixprof
from mixprof.data.case import Case
from mixprof.metrics import accuracy
from mixprof.worker import feeds


@pytest.mark.parametrize("name", ["pointwise_conv", "focal_modulation"])
def test_no_input_is_a_row_of_the_weights(name):
    """Drawn from one seed they are one stream: position p of the map is row p of the first matrix, at a cosine of 0.7,
    and its product so large an outlier that int8, calibrated on other inputs, clipped it: an error of 0.5 to 0.8."""
    case = Case(name, "eager", "cpu", "float32", "channels_last", "hot", 1, (14, 14), None, 96)
    module = mixprof.build(name, resolution=14, channels=96)
    (x,) = feeds.example_of(module, {"kind": "mixer"}, case).args
    accuracy.initialize(module, (x,), feeds.seed_of(case))
    first = next(each for each in module.parameters() if each.dim() > 1).detach().reshape(-1, 96)
    rows = min(len(first), 96)
    assert cosine_similarity(first[:rows], x.reshape(-1, 96)[:rows]).mean() < 0.1
    assert torch.equal(x, feeds.example_of(module, {"kind": "mixer"}, case).args[0])
