"""What tests share: temporary folders of each process of tests, and fixtures that skip what needs a CUDA device."""

import importlib.util
import os
import shutil
import tempfile

import pytest

from mixprof.machine import cuda_driver

# Files whose tests begin many processes, browsers or builds: they take more than half of the time of all that are not
# marked one by one, and `make test` is to end within five minutes.
SLOW = {
    *("test_ab.py", "test_artifacts.py", "test_gpu_acceptance.py", "test_int8.py", "test_lowering_openvino.py"),
    *("test_onnx_macs.py", "test_page.py", "test_people_count.py", "test_people_onnx.py", "test_ran.py"),
    *("test_serve_test.py", "test_symbolic.py", "test_tensorrt.py"),
}


def pytest_collection_modifyitems(items):
    whole = os.environ.get("MIXPROF_FUZZ") == "200"
    for item in items:
        if item.get_closest_marker("long") and not whole:
            item.add_marker(pytest.mark.skip(reason="takes a minute or more: with MIXPROF_FUZZ=200"))
        if item.path.name in SLOW:
            item.add_marker(pytest.mark.slow)


def pytest_configure(config):
    """Give each process of pytest-xdist its own temporary folder: gates wait there for one another."""
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):
        config.mixprof_temporary = tempfile.mkdtemp(prefix=worker)
        os.environ["TMPDIR"], tempfile.tempdir = config.mixprof_temporary, None


def pytest_unconfigure(config):
    if temporary := getattr(config, "mixprof_temporary", None):
        shutil.rmtree(temporary, ignore_errors=True)


@pytest.fixture(scope="session")
def gpu():
    """The first CUDA device's name; without one the test is skipped. A device that torch cannot use is a failure."""
    if absent := cuda_driver.no_device():
        (pytest.fail if absent.failed else pytest.skip)(f"no CUDA device: {absent.reason}")
    import torch

    if not torch.backends.cuda.is_built():
        pytest.fail("there is a CUDA device, and this torch is built without CUDA: install its CUDA build")
    return "cuda:0"


@pytest.fixture(scope="session", params=["tensorrt", "tensorrt_rtx"])
def flavour(request, gpu):
    """Each TensorRT in turn, skipped where it is not installed, lacks pycuda, or builds nothing for this device."""
    from mixprof import lowerings
    from mixprof.lowerings.tensorrt import build

    if reason := lowerings.missing(request.param):
        pytest.skip(reason)
    if importlib.util.find_spec("pycuda") is None:
        pytest.skip("probes of engines look through pycuda: pip install 'mixprof[cuda]'")
    targets = getattr(build.load(request.param), "ComputeCapability", None)
    major, minor = cuda_driver.compute_capability(0)
    if targets is not None and f"SM{major}{minor}" not in targets.__members__:
        pytest.skip(f"{request.param} builds no engine for compute capability {major}.{minor}")
    return request.param
