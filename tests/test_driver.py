"""What is asked of the CUDA driver without torch, and what a machine without one, or without pycuda, says."""

import importlib
import importlib.util
import sys

import numpy as np
import pytest

from mixprof import lowerings
from mixprof.data.errors import Unavailable, is_out_of_memory
from mixprof.lowerings.tensorrt import build, run
from mixprof.machine import cuda_driver, cuda_graph


def test_without_a_driver_there_is_no_device_and_nothing_is_guessed():
    if cuda_driver.device_count():
        pytest.skip("this machine has a CUDA device")
    assert cuda_driver.device_uuid(0) is None
    assert cuda_driver.compute_capability(0) == (0, 0)


@pytest.mark.gpu
def test_the_driver_counts_what_torch_counts(gpu):
    import torch

    assert cuda_driver.device_count() == torch.cuda.device_count()
    assert cuda_driver.compute_capability(0) == torch.cuda.get_device_capability(0)
    assert cuda_driver.device_uuid(0) == f"GPU-{torch.cuda.get_device_properties(0).uuid}"
    assert cuda_driver.version() is not None


def test_without_bindings_an_engine_names_what_to_install(monkeypatch):
    for name in ("cuda.bindings", "pycuda"):
        monkeypatch.setitem(sys.modules, name, None)  # not importable
    trt = pytest.importorskip("tensorrt_rtx")
    with pytest.raises(Unavailable, match=r"pip install 'mixprof\[cuda\]'"):
        run.Runner(trt, b"", 0, {"x": np.zeros(1, np.uint8)}, {"x": (1,)}, graph=False)


def test_without_cuda_bindings_a_graph_names_what_to_install():
    try:
        importlib.import_module("cuda.bindings.driver")
    except ImportError:
        with pytest.raises(Unavailable, match=r"pip install 'mixprof\[cuda\]'"):
            cuda_graph.Captured(1, lambda: None)
    else:
        pytest.skip("cuda-bindings is installed here")


def test_a_folder_of_type_stubs_is_not_tensorrt(tmp_path, monkeypatch):
    if lowerings.is_installed("tensorrt"):
        pytest.skip("TensorRT is installed here")
    (tmp_path / "tensorrt").mkdir()
    (tmp_path / "tensorrt" / "__init__.pyi").write_text("class Builder: ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert importlib.util.find_spec("tensorrt") is not None  # as Python sees it
    assert not lowerings.is_installed("tensorrt")
    assert "tensorrt is not installed" in (lowerings.missing("tensorrt") or "")
    with pytest.raises(Unavailable, match=r"mixprof\[tensorrt\]"):
        build.load("tensorrt")
    sys.modules.pop("tensorrt", None)


class DriverError(Exception):
    """pycuda's MemoryError is none of Python's."""


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("cuMemAlloc failed: out of memory", True),
        ("CUDA out of memory. Tried to allocate 64.00 GiB", True),
        ("Failed to allocate memory for requested buffer of size 4096", True),
        ("cuMemAlloc failed: invalid argument", False),
    ],
)
def test_a_failed_allocation_is_known_by_what_any_library_says(said, expected):
    assert is_out_of_memory(DriverError(said)) is expected
