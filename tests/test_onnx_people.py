"""The ONNX files that tests bring, against onnxruntime itself: it loads them, and runs what is to be `ok`."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from onnx_people import MAKERS

TYPES = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int64)": np.int64}


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
def test_onnxruntime_runs_what_is_expected_to_be_ok(maker, tmp_path):
    made = maker(tmp_path)
    if made.status != "ok":
        pytest.skip("refused before it is run")
    session = onnxruntime.InferenceSession(str(made.path), providers=["CPUExecutionProvider"])
    shapes = dict(text.rsplit(":", 1) for text in made.options[1:])
    for each in session.get_inputs():
        sizes = [int(size) for size in shapes[each.name].split("x")] if shapes else each.shape
        fed = {each.name: (100 * np.random.default_rng(0).random(sizes)).astype(TYPES[each.type])}
    outputs = session.run(None, fed)
    assert len(outputs) >= 1
