"""The Triton kernels without a GPU: costs and shapes on meta, where they are offered, values in the interpreter."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mixprof import models
from mixprof.data.errors import Unsupported
from mixprof.metrics.flops import count
from mixprof.metrics.memory_plan import predict_peak
from mixprof.models.formulations import TRITON, can_run
from mixprof.models.kernels import triton
from mixprof.models.registry import MODELS
from mixprof.models.specialization import formulations_in, offered
from mixprof.worker import modules

ROOT = Path(__file__).parents[1]
MIXERS = [name for name, entry in MODELS.items() if TRITON in entry.on_cuda]
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed: pip install 'mixprof[triton]'"
)


@pytest.fixture
def installed(monkeypatch):
    """Shapes and costs need no Triton: it is asked for where a kernel is to run."""
    monkeypatch.setattr(triton, "is_installed", lambda: True)


def test_four_mixers_have_one():
    assert MIXERS == [
        "window_attention",
        "depthwise_conv",
        "dynamic_depthwise_conv",
        "inhomogeneous_depthwise_conv",
    ]


@pytest.mark.parametrize("lowering", ["eager", "compile"])
@pytest.mark.parametrize("name", MIXERS)
def test_shapes_and_costs_are_those_of_the_definition(name, lowering, installed):
    x = torch.empty(2, 14, 21, 64, device="meta")
    published = models.build(name, resolution=(14, 21), channels=64).to("meta")
    kernel = models.specialize(models.build(name, resolution=(14, 21), channels=64).to("meta"), lowering, {"": TRITON})
    counted, right = count(kernel, x), count(published, x)
    assert formulations_in(kernel) == [TRITON]
    assert kernel(x).shape == x.shape
    assert (counted.macs, counted.uncounted_ops) == (right.macs, ())
    assert counted.vector_macs == (0 if name == "window_attention" else 2 * 14 * 21 * 64 * 49 * ("inh" not in name))


def test_what_lies_in_padding_is_not_multiplied(installed):
    x = torch.empty(1, 8, 9, 64, device="meta")
    module = models.build("window_attention:shifted=true", resolution=(8, 9), channels=64).to("meta")
    right = count(module, x).macs
    spared = (14 * 14 - 8 * 9) * 4 * 64 * 64  # positions that the projections leave out
    assert count(models.specialize(module, "eager", {"": TRITON}), x).macs == right - spared


@pytest.mark.parametrize("name", MIXERS)
def test_memory_is_predicted_of_the_operators(name, installed):
    module = models.build(name, resolution=14, channels=64)
    x = torch.empty(1, 14, 14, 64)
    peak = predict_peak(models.specialize(module, "eager", {"": TRITON}), x)
    assert 2 * x.nbytes <= peak <= 6 * x.nbytes  # never K*K values for each


@pytest.mark.parametrize("name", MIXERS)
def test_they_are_rivals_on_a_cuda_device_alone(name):
    part = models.build(name, resolution=7, channels=32)

    def rivals(lowering: str, device: str) -> set[str]:
        return {one for one in offered(part) if TRITON in one and can_run(one, lowering, device)}

    assert rivals("eager", "cuda:0") == rivals("compile", "cuda:1") == {TRITON, f"{TRITON}+1x1"}
    assert not rivals("eager", "cpu") | rivals("eager", "sim:0") | rivals("onnxruntime", "cuda:0")


def test_elsewhere_the_reason_is_said(monkeypatch):
    name = f"depthwise_conv:formulation={TRITON}"
    monkeypatch.setattr(triton, "is_installed", lambda: False)
    with pytest.raises(ValueError, match=r"without the package triton: pip install 'mixprof\[triton\]'"):
        models.build(name, resolution=7, lowering="eager")
    monkeypatch.setattr(triton, "is_installed", lambda: True)
    with pytest.raises(ValueError, match="'triton' for 'onnxruntime'"):
        models.build(name, resolution=7, lowering="onnxruntime")
    with pytest.raises(ValueError, match="got window=9, expected at most 8"):
        models.build(f"window_attention:formulation={TRITON}", resolution=9, window=9, lowering="eager")


@pytest.mark.parametrize("device", ["cpu", "sim:0"])
def test_asked_for_on_a_cpu_the_case_is_unsupported(device):
    source = {"specialize": "mixprof.models:specialize"}
    module = models.build(f"depthwise_conv:formulation={TRITON}", resolution=7)
    with pytest.raises(Unsupported, match=f"'triton' on {device}, expected a CUDA device"):
        modules.specialize(source, module, "eager", device=device)


@needs_triton
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", [*MIXERS, "window_attention:shifted=true"])
@torch.no_grad()
def test_on_a_device_the_values_are_right(name, dtype, gpu):
    torch.manual_seed(0)
    module = models.build(name, resolution=(15, 22), channels=96)
    for tensor in [*module.parameters(), *module.buffers()]:
        if tensor.is_floating_point():
            tensor.copy_(0.5 + torch.rand_like(tensor) if tensor.dim() == 1 else torch.randn_like(tensor) / 8)
    module, x = module.to(dtype).double(), torch.randn(2, 15, 22, 96).to(dtype)
    right = module(x.double())
    kernel = models.specialize(module, "eager", {"": TRITON}, gpu).to(gpu, dtype)
    error = (kernel(x.to(gpu)).cpu().double() - right).abs().max() / right.abs().max()
    assert error < {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}[dtype]


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("part", ["values", "resources"])
def test_the_proof_holds(part):
    """Values and gradients against float64 in the interpreter; nothing spills on sm_80, sm_90, sm_120."""
    script = [sys.executable, str(ROOT / "scripts" / "proofs" / "triton_kernels.py"), "--only", part, "--json"]
    subprocess.run(script, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, check=True)
