"""onnxruntime on a device: no silent CPU in its place, and its log in the reason. Never run on a GPU yet.

Azure's provider stands for CUDA's: every build has it, and it takes no node of a graph.
"""

import os
import sys

import pytest

from mixprof import lowerings
from mixprof.data.errors import Unavailable, Unsupported
from mixprof.lowerings import onnxruntime as ours

onnxruntime = pytest.importorskip("onnxruntime")
STAND_IN = "AzureExecutionProvider"


@pytest.fixture
def path(tmp_path):
    """A graph of one node."""
    import onnx
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "net", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "a.onnx")
    return tmp_path / "a.onnx"


@pytest.fixture
def stand_in(monkeypatch):
    if STAND_IN not in onnxruntime.get_available_providers():
        pytest.skip(f"this onnxruntime has no {STAND_IN}")
    monkeypatch.setitem(ours.PROVIDERS, "cuda", STAND_IN)


def test_nodes_that_would_run_on_the_cpu_are_refused(path, stand_in):
    with pytest.raises(Unsupported, match=r"assigned to the default CPU EP.*`onnxruntime:fallback=cpu` allows it"):
        ours.session_of(path, "cuda", 1)


def test_an_option_allows_them_and_they_are_counted(path, stand_in):
    session = ours.session_of(path, "cuda", 1, falls_back=True)
    nodes = ours._nodes(session)
    assert nodes in ({}, {"CPUExecutionProvider": ["Relu"]})  # an older onnxruntime does not tell
    assert nodes or not hasattr(session, "get_provider_graph_assignment_info")
    assert lowerings.parse("onnxruntime:fallback=cpu")[1] == {"fallback": "cpu"}


def test_a_build_without_cuda_names_the_other_package(path):
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime is built with CUDA")
    with pytest.raises(Unavailable, match=r"no CUDAExecutionProvider: pip uninstall onnxruntime, then pip install "):
        ours.session_of(path, "cuda", 1)


def test_what_a_library_writes_is_kept_and_passed_on(capfd):
    lines: list[str] = []
    with ours._standard_error(lines):
        os.write(2, b"\x1b[1;31m2026-01-01 [E:onnxruntime:, x.cc:1] libcublasLt.so.13: cannot open\x1b[m\nlast\n")
    assert lines[1:] == ["last"]
    assert ours._reason(lines) == "2026-01-01 [E:onnxruntime:, x.cc:1] libcublasLt.so.13: cannot open"
    line = f"{lines[0]} : FAIL : Failed to load library /a/b.so with error: libcudnn.so.9: cannot open"
    assert ours._reason(["[W:onnxruntime:] x", line]) == "libcudnn.so.9: cannot open"
    assert ours._reason([]) == "it does not say why"
    print("after", file=sys.stderr)
    assert capfd.readouterr().err.splitlines()[-2:] == ["last", "after"]
