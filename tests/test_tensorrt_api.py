"""Every name of TensorRT that the code touches exists in the flavour installed here and in the stubs of TensorRT 10."""

import importlib
import sys
from pathlib import Path

import pytest

import mixprof
from api_surface import Use, stub_names, uses_of
from mixprof.lowerings import LOWERINGS, is_installed

ROOT = Path(mixprof.__file__).parent
FILES = sorted((ROOT / "lowerings" / "tensorrt").glob("*.py"))
STUBS = Path(sys.prefix) / "stubs"
FLAVOURS = ["tensorrt", "tensorrt_rtx", "stubs of TensorRT 10"]

INVENTED = """
def build(trt: TensorRT, log):
    builder = trt.Builder(log)
    config = builder.create_builder_config()
    config.builder_optimisation_level = 3
    engine = trt.Runtime(log).deserialize_cuda_engine(b"")
    engine.invent()
    trt.BuilderFlag.INVENTED
    trt.Inventory()
    if hasattr(engine, "guess"):
        engine.guess()
"""


def names_of(flavour):
    """Whether a flavour has a name, as a function of its class ("" for the module) and itself; skips without it."""
    if flavour in LOWERINGS:
        if not is_installed(flavour):
            pytest.skip(f"{flavour} is not installed: {LOWERINGS[flavour].install}")
        module = importlib.import_module(flavour)
        return lambda owner, name: hasattr(getattr(module, owner) if owner else module, name)
    if not STUBS.is_dir():
        pytest.skip("the type stubs are not there: python scripts/type_stubs.py")
    names = stub_names(STUBS)
    return lambda owner, name: name in names.get(owner, ())


def missing(uses, has):
    """What is touched without being asked for, and is not there."""
    return sorted(f"{use.owner}.{use.name} ({use.where})" for use in uses if not use.guarded
                  if not has(use.owner, use.name))  # fmt: skip


@pytest.fixture(scope="module")
def uses() -> set[Use]:
    return {use for file in FILES for use in uses_of(file.read_text(), file.name)}


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_name_that_is_touched_exists(uses, flavour):
    assert missing(uses, names_of(flavour)) == []


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_an_invented_name_is_found_missing(flavour):
    found = {each.split(" ")[0] for each in missing(uses_of(INVENTED), names_of(flavour))}
    assert found == {
        "IBuilderConfig.builder_optimisation_level",
        "ICudaEngine.invent",
        "BuilderFlag.INVENTED",
        ".Inventory",
    }


def test_what_is_asked_for_exists_in_one_flavour_at_least(uses):
    """A misspelt name in hasattr would switch its branch off without a word."""
    known = [names_of(each) for each in ("tensorrt_rtx", "stubs of TensorRT 10")]
    asked = {(use.owner, use.name) for use in uses if use.guarded}
    assert ("", "CudaGraphStrategy") in asked
    # Of classes that one flavour alone has, only that one can tell.
    assert {each for each in asked if not any(_has(has, *each) for has in known)} == set()


def _has(has, owner, name):
    try:
        return has(owner, name)
    except AttributeError:
        return False


def test_the_walk_sees_what_there_is(uses):
    """One name of each kind of object, so that none has dropped out of sight."""
    seen = {(use.owner, use.name) for use in uses}
    assert seen >= {
        ("", "Builder"),
        ("", "ILogger"),
        ("", "IProfiler"),
        ("BuilderFlag", "TF32"),
        ("Builder", "build_serialized_network"),
        ("IBuilderConfig", "profiling_verbosity"),
        ("IOptimizationProfile", "set_shape"),
        ("OnnxParser", "num_errors"),
        ("ParserError", "node_operator"),
        ("Runtime", "deserialize_cuda_engine"),
        ("ICudaEngine", "get_tensor_mode"),
        ("IExecutionContext", "execute_async_v3"),
        ("IExecutionContext", "nvtx_verbosity"),
        ("IExecutionContext", "profiler"),
        ("EngineInspector", "execution_context"),
        ("IRuntimeConfig", "cuda_graph_strategy"),
        ("ITimingCache", "serialize"),
        ("DataType", "itemsize"),
    }
    assert {each for each in seen if not each[0]} >= {("", name) for name in ("Dims", "OnnxParser", "Runtime")}
