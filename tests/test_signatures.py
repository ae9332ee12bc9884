"""Every name of torch, pynvml and cuda.bindings that is used exists here, and is called as it wants to be."""

import importlib
from pathlib import Path

import pytest

FILE = Path(__file__).parents[1] / "scripts" / "signatures.py"

INVENTED = """
import torch
def use(nvml, handle, cuda):
    torch.cuda.set_device(0, 1)
    torch.cuda.invented()
    torch.cuda.set_device(device=0)
    _ask(nvml, "nvmlDeviceGetTemperature", handle)
    _ask(nvml, "nvmlDeviceInvented", handle)
    nvml.NVML_CLOCK_SM
    cuda.cuInvented(0)
    cuda.cuInit(0)
    if hasattr(torch, "later"):
        torch.later()
"""


@pytest.fixture
def signatures(monkeypatch):
    monkeypatch.syspath_prepend(str(FILE.parent))
    return importlib.import_module("signatures")


def test_what_is_used_is_there_and_takes_what_it_is_given(signatures):
    counts, troubles = signatures.check()
    assert troubles == []
    assert any(name.startswith("torch ") and count > 150 for name, count in counts.items())


def test_an_invented_name_and_a_wrong_call_are_seen(signatures, tmp_path, monkeypatch):
    pytest.importorskip("pynvml")
    pytest.importorskip("cuda.bindings.driver")
    monkeypatch.setattr(signatures, "ROOT", tmp_path / "profiler")
    (tmp_path / "profiler").mkdir()
    (tmp_path / "profiler" / "uses.py").write_text(INVENTED)
    _, troubles = signatures.check()
    words = "\n".join(troubles)
    assert len(troubles) == 5, words
    for name in ("torch.cuda.set_device(", "torch has no cuda.invented", "pynvml.nvmlDeviceGetTemperature(",
                 "pynvml has no nvmlDeviceInvented", "cuda has no cuInvented"):  # fmt: skip
        assert name in words
