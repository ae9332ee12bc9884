"""What is said of an error in one line: the line that tells something."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from mixprof.data.errors import first_line, one_line, root_cause


def test_a_line_that_only_leads_up_to_the_next_is_joined_to_it():
    with pytest.raises(RuntimeError) as caught:
        nn.Linear(2, 2).load_state_dict({"weight": torch.zeros(2, 3)})
    line = one_line(caught.value)
    assert line.startswith("RuntimeError: Error(s) in loading state_dict for Linear: ")
    assert "bias" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("text", "line"),
    [("\n a \n b", "a"), ("a:\n  b\nc", "a: b"), ("a:", "a:"), ("a:\nb:\nc\nd", "a: b: c"), ("", "ValueError")],
)
def test_the_first_line(text, line):
    assert first_line(ValueError(text)) == line


def test_the_cause_at_the_bottom():
    bottom, top = KeyError("deep"), ValueError("shallow")
    top.__cause__ = bottom
    assert root_cause(top) is bottom
    assert root_cause(bottom) is bottom


def test_a_path_to_us_that_is_relative_is_found_from_anywhere():
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "mixprof", "count", "depthwise_conv", "--resolution", "14", "--json"]
    for folder, path in ((root, "src"), (root / "tests", "../src")):
        environment = {**os.environ, "PYTHONPATH": path}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
