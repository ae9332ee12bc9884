"""The C++ kernels against float64, in every dtype and at shapes that no block divides."""

import importlib

import pytest
import torch

from mixprof import models
from mixprof.metrics import flops
from mixprof.models.kernels.cpu import build
from mixprof.models.kernels.cpu.linear import CppLinear

needs_compiler = pytest.mark.skipif(build.compiler_here() is None, reason="there is no C++ compiler")
SHAPES = [(1, 28, 28, 96, 7), (2, 5, 7, 96, 3), (3, 1, 1, 32, 5), (1, 9, 2, 160, 7), (1, 3, 26, 64, 9)]
OTHERS = ("selective_scan", "local_mlp", "dynamic_large_kernel", "deformable_aggregation", "neighborhood_attention")
LAYERS = {"selective_scan": 2, "dynamic_large_kernel": 3}  # more roundings in a row: other formulations are as far off
CONVOLUTIONS = ("depthwise_conv", "dynamic_depthwise_conv", "inhomogeneous_depthwise_conv")
WINDOWS = [(1, 14, 14, 96, 7), (2, 9, 13, 64, 7), (1, 3, 5, 32, 7), (1, 12, 25, 32, 11), (3, 4, 4, 32, 1)]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 1e-2}


def mixer_and_input(name, batch, height, width, channels, window):
    """A published mixer in float64 with weights that all matter, and an input."""
    torch.manual_seed(0)
    module = models.build(name, resolution=(height, width), window=window, channels=channels).double()
    for tensor in [*module.parameters(), *module.buffers()]:
        if tensor.is_floating_point():
            tensor.data.copy_(0.5 + torch.rand_like(tensor) if tensor.dim() == 1 else torch.randn_like(tensor) / 8)
    return module, torch.randn(batch, height, width, channels, dtype=torch.float64)


@needs_compiler
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", [*CONVOLUTIONS, *OTHERS])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@torch.no_grad()
def test_the_kernels_of_maps_are_right(name, shape, dtype):
    module, x = mixer_and_input(name, *shape)
    module, x = module.to(dtype).double(), x.to(dtype)
    expected = module(x.double())
    kernel = models.specialize(module, "eager", {"": "cpp"}).to(dtype)
    error = (kernel(x).double() - expected).abs().max() / expected.abs().max()
    assert error < TOLERANCE[dtype] * LAYERS.get(name, 1)


@needs_compiler
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shifted", ["true", "false"])
@pytest.mark.parametrize("shape", WINDOWS, ids=str)
@torch.no_grad()
def test_the_attention_kernel_is_right(shape, shifted, dtype):
    """Also on maps that windows do not divide, smaller than one, and with more keys than a panel holds."""
    module, x = mixer_and_input(f"window_attention:shifted={shifted}", *shape)
    module, x = module.to(dtype).double(), x.to(dtype)
    expected = module(x.double())
    kernel = models.specialize(module, "eager", {"": "cpp"}).to(dtype)
    error = (kernel(x).double() - expected).abs().max() / expected.abs().max()
    assert error < TOLERANCE[dtype]


@needs_compiler
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(
    ("rows", "depth", "outputs"), [((1,), 1, 1), ((2, 5, 7), 24, 33), ((13,), 96, 64), ((200,), 40, 31)]
)
@torch.no_grad()
def test_the_product_is_right(rows, depth, outputs, dtype):
    torch.manual_seed(0)
    plain = torch.nn.Linear(depth, outputs, bias=outputs != 31).to(dtype)
    x = torch.randn(*rows, depth, dtype=dtype)
    ours = CppLinear.of(plain)(x)
    expected = plain.double()(x.double())
    assert ours.shape == expected.shape
    assert (ours.double() - expected).abs().max() / expected.abs().max() < TOLERANCE[dtype]


@needs_compiler
def test_the_operators_have_shapes_without_values_and_compiles():
    for name in sorted(path.stem for path in build.HERE.glob("*.cpp")):
        importlib.import_module(f"mixprof.models.kernels.cpu.{name}")
    generator = torch.Generator().manual_seed(0)
    shapes = ((1, 4, 5, 32), (1, 32, 32), (32,), (9, 8, 32), (9, 32), (32,), (32,))
    operands = [torch.randn(shape, generator=generator) for shape in shapes]
    tests = ("test_schema", "test_faketensor", "test_aot_dispatch_static")
    torch.library.opcheck(torch.ops.mixprof.inhomogeneous, (*operands, 3), test_utils=tests)
    product = [torch.randn(shape, generator=generator) for shape in ((2, 3, 8), (2, 8, 32), (64,))]
    torch.library.opcheck(torch.ops.mixprof.linear, (*product, 40), test_utils=tests)
    depthwise = [torch.randn(shape, generator=generator) for shape in ((2, 3, 4, 32), (2, 9, 32), (32,))]
    torch.library.opcheck(torch.ops.mixprof.depthwise, tuple(depthwise), test_utils=tests)
    maps, weights = ((1, 3, 4, 32), (1, 3, 4, 8), (1, 3, 4, 8)), ((4, 2, 32), (4, 32), (4, 32), (4, 32))
    scan = [torch.randn(shape, generator=generator) for shape in (*maps, *weights)]
    torch.library.opcheck(torch.ops.mixprof.directional_scan, tuple(scan), test_utils=tests)
    attention = [torch.randn(shape, generator=generator) for shape in ((1, 3, 4, 96), (96,), (1, 1, 4, 32))]
    torch.library.opcheck(torch.ops.mixprof.window_attention, (*attention, 1, 2, 1, 0), test_utils=tests)


def test_without_a_compiler_the_reason_is_named(monkeypatch):
    monkeypatch.setattr(build, "compiler_here", lambda: None)
    build.library.cache_clear()
    with pytest.raises(ValueError, match=r"no C\+\+ compiler.*apt-get install"):
        models.build("inhomogeneous_depthwise_conv:formulation=cpp", resolution=8, lowering="eager")
    assert models.build("inhomogeneous_depthwise_conv", resolution=8, lowering="eager").formulation == "shift"


@needs_compiler
def test_a_folder_that_others_can_write_is_refused(monkeypatch, tmp_path):
    tmp_path.chmod(0o777)
    monkeypatch.setenv("MIXPROF_CACHE", str(tmp_path))
    build.library.cache_clear()
    with pytest.raises(ValueError, match="others own or can write"):
        build.library("inhomogeneous")


@needs_compiler
def test_a_folder_that_cannot_be_made_is_named(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MIXPROF_CACHE", str(tmp_path / "file" / "cache"))
    build.library.cache_clear()
    with pytest.raises(ValueError, match=r"cannot be built here.*MIXPROF_CACHE"):
        build.library("linear")


def test_no_graph_holds_the_kernel():
    with pytest.raises(ValueError, match="'cpp' for 'onnxruntime'"):
        models.build("inhomogeneous_depthwise_conv:formulation=cpp", resolution=8, lowering="onnxruntime")


@pytest.mark.parametrize("name", ["inhomogeneous_depthwise_conv", "window_attention"])
def test_what_is_counted_is_the_published_definition(name):
    x = torch.randn(1, 9, 13, 64)
    pinned, usual = (
        models.build(f"{name}{option}", resolution=(9, 13), channels=64) for option in (":formulation=cpp", "")
    )
    pinned.load_state_dict(usual.state_dict())
    assert torch.equal(pinned(x), usual(x))


@needs_compiler
@pytest.mark.parametrize("name", [*CONVOLUTIONS, *OTHERS, "window_attention:shifted=true"])
def test_the_kernels_multiply_as_often_as_the_published_definition(name):
    published = flops.count(models.build(name, resolution=14), torch.randn(1, 14, 14, 96))
    kernel = models.specialize(models.build(name, resolution=14), "eager", {"": "cpp+cpp"})
    counts = flops.count(kernel, torch.randn(1, 14, 14, 96))
    assert (counts.macs, counts.uncounted_ops) == (published.macs, ())
