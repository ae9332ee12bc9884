"""ONNX files that tests export or build, and what stands for them in a sweep."""

import os
import subprocess
import sys
from pathlib import Path

import onnx
import torch
from onnx import helper
from torch import nn

from mixprof.plan import sources
from mixprof.plan.axes import Axes, expand
from mixprof.plan.files import Given
from mixprof.worker import graphs

TESTS = Path(__file__).parent
SIDES = (13, 9)


class Two(nn.Module):
    """Pictures and indices into a table of seven rows: (B, 3, H, W), (B, L) -> (B, 5) and the largest's index, (B,)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.conv, self.table, self.out = nn.Conv2d(3, 8, 3, padding=1), nn.Embedding(7, 8), nn.Linear(8, 5)

    def forward(self, image, ids):
        scores = self.out(torch.relu(self.conv(image)).mean((2, 3)) + self.table(ids).sum(1))
        return scores, scores.argmax(1)


def two(path, dtype=torch.float32, free=True):
    """Export it with batch, height and width free, or all of them fixed."""
    module = Two().eval().to(dtype)
    axes = {"image": {0: "batch", 2: "h", 3: "w"}, "ids": {0: "batch"}} if free else None
    example = (torch.randn(2, 3, *SIDES, dtype=dtype), torch.zeros(2, 4, dtype=torch.int64))
    torch.onnx.export(
        module, example, str(path), dynamo=False, opset_version=17,
        input_names=["image", "ids"], output_names=["scores", "best"], dynamic_axes=axes,
    )  # fmt: skip
    return module


def build(path, nodes, given, returned, weights=(), opset=20, functions=()):
    """A graph of onnx.helper. given, returned: name -> (element type, shape)."""
    takes, gives = (
        [helper.make_tensor_value_info(name, *each) for name, each in side.items()] for side in (given, returned)
    )
    made = helper.make_graph(nodes, "built", takes, gives, list(weights))
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], functions=functions)
    model.ir_version = 10
    onnx.save(model, str(path))
    return model


def source(path, shapes=None, archive=None):
    found = graphs.inspect({"path": str(path), "inputs": None if archive is None else str(archive)})
    return sources.of_file(str(path), Given(shapes or {}, None if archive is None else str(archive)), found)


def request(found, case, tmp_path):
    from mixprof.run.client import source_request

    return {
        "source": source_request(found),
        "case": case.to_json(),
        "threads": 1,
        "reference": str(tmp_path / "reference.pt"),
        "cache": str(tmp_path),
    }


def cases(found, name="net.onnx", **axes):
    return expand([Axes(models=(name,), **{"devices": ("cpu",), **axes})], lambda _: found, ["cpu"])


def mixprof(*arguments, cwd=TESTS):
    command = [sys.executable, "-m", "mixprof", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent / "src")}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
