"""Predicted and measured peaks against what is known by hand, then against each other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend

import plain_mixers
from mixprof import models
from mixprof.machine import devices
from mixprof.metrics import memory_plan
from mixprof.metrics.memory import process_peak, weights_bytes
from mixprof.metrics.memory_plan import predict_peak

KIB = 1024
# What a oneDNN convolution on channels_last maps takes for bookkeeping and Python numbers as tensors: not modelled.
SMALL = 16 * KIB


def measured(forward: Callable[..., object], *inputs: Tensor) -> int:
    """The peak of a second forward: the first one makes what is made once."""
    with torch.inference_mode():
        forward(*inputs)
        peak = devices.of("cpu").allocator_peak(lambda: forward(*inputs))
    assert peak is not None
    return peak


def arranged(module: nn.Module, memory_format: torch.memory_format) -> nn.Module:
    return module.to(memory_format=memory_format)  # type: ignore[call-overload]


def chain(x: Tensor) -> Tensor:
    y = x.relu()  # 1
    z = y + y  # 2
    del y
    z = z.view(-1).mul_(z.view(-1))  # a view and in place: still 1
    return torch.cat([z, z])  # z and twice its size: 3


def hold_all(x: Tensor) -> list[Tensor]:
    return [x.relu(), x.tanh(), x.t(), x[0]]


def drop_all(x: Tensor) -> None:
    for _ in range(5):
        x.relu()


def grow(x: Tensor) -> Tensor:
    return x[:1].expand(64, -1).contiguous().relu_()


@pytest.mark.parametrize(("forward", "sizes"), [(chain, 3), (hold_all, 2), (drop_all, 1), (grow, 1)])
def test_known_by_hand(forward: Callable[..., object], sizes: int):
    x = torch.randn(64, 256)
    assert measured(forward, x) == sizes * 64 * KIB
    assert predict_peak(forward, x) == sizes * 64 * KIB
    assert predict_peak(forward, x.to("meta")) == sizes * 64 * KIB


def test_weights_and_inputs_are_not_in_it():
    module = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 128))
    x = torch.randn(64, 256)
    expected = 4 * 64 * (512 + 512)  # before and after the ReLU
    assert measured(module, x) == predict_peak(module, x) == predict_peak(module.to("meta"), x.to("meta")) == expected


def test_nothing_is_computed_or_allocated():
    """160 GB of output from 160 GB of input."""
    assert predict_peak(torch.relu, torch.empty(200_000, 200_000, device="meta")) == 4 * 200_000**2


def test_a_module_may_choose_by_device():
    def forward(x: Tensor) -> Tensor:
        return x.relu() if x.device.type == "cpu" else torch.cat([x, x])

    x = torch.empty(KIB, device="meta")
    assert predict_peak(forward, x) == 4 * KIB
    assert predict_peak(forward, x, device="cuda") == 8 * KIB


def test_another_device_has_no_workspaces_of_the_cpu():
    with torch.device("meta"):
        conv, x = nn.Conv2d(32, 32, 3, padding=1), torch.empty(1, 32, 64, 64)
    output = 4 * 32 * 64 * 64
    assert predict_peak(conv, x, device="cuda") == output
    assert predict_peak(conv, x) == pytest.approx(2 * output, rel=0.1)  # once more in blocks of channels


CONVOLUTIONS = {
    "patches": (nn.Conv2d(3, 96, 4, 4), (4, 3, 64, 64)),
    "pointwise": (nn.Conv2d(96, 24, 1), (1, 96, 56, 56)),
    "to many channels": (nn.Conv2d(24, 1568, 1), (1, 24, 28, 28)),
    "dense": (nn.Conv2d(96, 96, 7, padding=3), (2, 96, 28, 28)),
    "reduction": (nn.Conv2d(64, 64, 8, 8), (1, 64, 56, 56)),
    "depthwise": (nn.Conv2d(96, 96, 7, padding=3, groups=96), (2, 96, 56, 56)),
    "odd channels": (nn.Conv2d(17, 40, 5, padding=2), (2, 17, 28, 28)),
    "odd depthwise": (nn.Conv2d(20, 20, 3, padding=1, groups=20), (2, 20, 28, 28)),
    "too small for oneDNN": (nn.Conv2d(8, 8, 3, padding=1), (1, 8, 10, 10)),
    "one position": (nn.Conv2d(96, 24, 1), (1, 96, 1, 1)),
}


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution(name: str, memory_format: torch.memory_format):
    conv, shape = CONVOLUTIONS[name]
    module, x = arranged(conv, memory_format), torch.randn(shape).to(memory_format=memory_format)
    assert predict_peak(module, x) == pytest.approx(measured(module, x), rel=0.03, abs=SMALL)


@pytest.mark.parametrize(
    "forward",
    [
        lambda x: F.unfold(x, 7, padding=3),
        lambda x: F.unfold(x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2), 7, padding=3),
        lambda x: x.roll((3, 3), (2, 3)),
        lambda x: x.roll(3, 2),
        lambda x: x.softmax(-1),
        lambda x: x.transpose(1, 3).softmax(-1),
        lambda x: F.layer_norm(x.transpose(1, 3), (32,)),
        lambda x: F.batch_norm(x, torch.zeros(32), torch.ones(32)),
        lambda x: F.max_pool2d(x, 2),
        lambda x: F.linear(x, torch.zeros(96, 28)),
        lambda x: torch.einsum("bchw,bchv->bcwv", x, x),
        lambda x: F.conv2d(
            x.permute(0, 2, 3, 1).permute(0, 3, 1, 2).view(1, 64, 28, 28), torch.ones(64, 1, 3, 3), groups=64
        ),
    ],
)
def test_other_kernels(forward: Callable[[Tensor], Tensor]):
    x = torch.randn(2, 32, 28, 28)
    assert predict_peak(forward, x) == pytest.approx(measured(forward, x), rel=0.01, abs=KIB)


def attention(batch: int, length: int, keys: int, width: int = 32, mask: Tensor | None = None) -> tuple:
    q, k = torch.randn(batch, 3, length, width), torch.randn(batch, 3, keys, width)
    return lambda q, k: F.scaled_dot_product_attention(q, k, k, attn_mask=mask), q, k


@pytest.mark.parametrize(
    "case",
    [
        attention(64, 49, 49),
        attention(1, 1000, 700),
        attention(1, 300, 49),
        attention(64, 49, 49, mask=torch.zeros(64, 3, 49, 49)),
        attention(64, 49, 49, mask=torch.zeros(64, 3, 49, 49).transpose(2, 3)),
        attention(64, 49, 49, mask=torch.ones(64, 1, 49, 49, dtype=torch.bool)),
    ],
)
def test_fused_attention(case: tuple):
    """Also on meta, where torch itself would decompose it and show the whole matrix of scores."""
    forward, q, k = case
    assert predict_peak(forward, q, k) == pytest.approx(measured(forward, q, k), rel=0.01)


def test_attention_that_no_fused_kernel_takes():
    def forward(q: Tensor, v: Tensor) -> Tensor:  # values of another width
        return F.scaled_dot_product_attention(q, q, v)

    q, v = torch.randn(64, 3, 49, 32), torch.randn(64, 3, 49, 16)
    assert predict_peak(forward, q, v) == pytest.approx(measured(forward, q, v), rel=0.01)


MIXERS = [name for name in models.MODELS if models.kind(name) == "mixer"]
NETWORKS = ["swin_t", "dwnet_t", "dynamic_dwnet_t", "i_dynamic_dwnet_t"]


@pytest.mark.parametrize(
    ("name", "batch"),
    [(name, batch) for name in MIXERS for batch in (1, 4) if batch == 1 or name in plain_mixers.MIXERS],
)
def test_mixers(name: str, batch: int):
    module, x = models.build(name, resolution=56, channels=96, lowering="eager"), torch.randn(batch, 56, 56, 96)
    assert predict_peak(module, x) == pytest.approx(measured(module, x), rel=0.1)


@pytest.mark.parametrize(("resolution", "memory_format"), [(64, torch.contiguous_format), (224, torch.channels_last)])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name: str, resolution: int, memory_format: torch.memory_format):
    module = arranged(models.build(name, resolution=resolution, lowering="eager"), memory_format)
    x = torch.randn(1, 3, resolution, resolution).to(memory_format=memory_format)
    assert predict_peak(module, x) == pytest.approx(measured(module, x), rel=0.1)


def test_process_peak():
    nothing, much = process_peak(lambda: None), process_peak(lambda: torch.ones(2**26))
    if nothing is None or much is None:
        pytest.skip("the kernel does not reset the high-water mark")
    assert much - nothing > 0.9 * 2**28


def test_weights_bytes():
    module = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8))
    module.append(module[0])  # shared: once
    assert weights_bytes(module) == 4 * (64 + 8) + 4 * 4 * 8 + 8
    assert weights_bytes(module.half()) == 2 * (64 + 8) + 2 * 4 * 8 + 8


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_allocator_peak_cuda():
    x = torch.randn(64, 256, device="cuda")
    with torch.inference_mode():
        assert devices.of("cuda:0").allocator_peak(lambda: chain(x)) == 3 * 64 * KIB


@pytest.mark.parametrize(
    ("backend", "beside"),
    [
        (SDPBackend.FLASH_ATTENTION, 4 * 2 * 3 * 64),  # a log-sum-exp in float32 for each query
        (SDPBackend.EFFICIENT_ATTENTION, 0),  # none: nothing is kept for a backward
        (SDPBackend.MATH, 2 * 2 * 3 * 64 * 64),
    ],
)
def test_attention_on_cuda_is_that_of_the_backend_there(backend, beside, monkeypatch):
    """The backend is said here, since no GPU is: only what follows from it is tested."""
    monkeypatch.setattr(memory_plan, "backend", lambda *args, **kwargs: backend.value)
    q = torch.randn(2, 3, 64, 32, dtype=torch.float16, device="meta")
    peak = predict_peak(lambda q: nn.functional.scaled_dot_product_attention(q, q, q), q, device="cuda")
    output = 2 * q.numel()
    if backend is SDPBackend.MATH:
        assert peak >= output + beside
    else:
        assert 0 <= peak - output - beside <= 64  # and the state of a random generator
