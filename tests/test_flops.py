"""The counter against closed forms, against two other counters where they know the operator, and where they don't."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from math import prod

import pytest
import torch
import torch.nn.functional as F
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mixprof import models
from mixprof.metrics.flops import Counts, count
from mixprof.metrics.operator_costs import FORMULAS, LIGHT

aten = torch.ops.aten
TORCH = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
MODES = (torch.enable_grad, torch.no_grad, torch.inference_mode)


class Call(nn.Module):
    """A function as a module: what fvcore needs."""

    def __init__(self, function: Callable[..., Tensor]):
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def meta(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta")


def torch_macs(function: Callable[..., object], *inputs: Tensor) -> float:
    with FlopCounterMode(display=False) as counter:
        function(*inputs)
    return counter.get_total_flops() / 2


def fvcore_macs(function: Callable[..., Tensor], *inputs: Tensor) -> float:
    """fvcore's "flops" of matrix products are multiply-accumulates."""
    analysis = FlopCountAnalysis(Call(function), inputs)
    return analysis.unsupported_ops_warnings(False).tracer_warnings("none").total()


def sizes(seed: int, number: int) -> list[int]:
    return random.Random(seed).choices(range(2, 12), k=number)


# What each test case computes, from sizes b, n, k, m: (name, function, shapes of its inputs, MACs)
def products(seed: int) -> list[tuple[str, Callable[..., Tensor], list[tuple[int, ...]], int]]:
    b, n, k, m = sizes(seed, 4)
    return [
        ("mm", torch.mm, [(n, k), (k, m)], n * k * m),
        ("bmm", torch.bmm, [(b, n, k), (b, k, m)], b * n * k * m),
        ("mv", torch.mv, [(n, k), (k,)], n * k),
        ("dot", torch.dot, [(k,), (k,)], k),
        ("vdot", torch.vdot, [(k,), (k,)], k),
        ("addr", torch.addr, [(n, m), (n,), (m,)], n * m),
        ("addmv", torch.addmv, [(n,), (n, k), (k,)], n * k),
        ("addmm", torch.addmm, [(m,), (n, k), (k, m)], n * k * m),
        ("addmm_activation", aten._addmm_activation, [(m,), (n, k), (k, m)], n * k * m),
        ("baddbmm", torch.baddbmm, [(b, n, m), (b, n, k), (b, k, m)], b * n * k * m),
        ("addbmm", torch.addbmm, [(n, m), (b, n, k), (b, k, m)], b * n * k * m),
        ("linear", F.linear, [(b, n, k), (m, k), (m,)], b * n * k * m),
        ("linear without bias", F.linear, [(b, 2, n, k), (m, k)], 2 * b * n * k * m),
        ("matmul broadcast left", torch.matmul, [(n, k), (b, 3, k, m)], 3 * b * n * k * m),
        ("matmul broadcast right", torch.matmul, [(b, 3, n, k), (3, k, m)], 3 * b * n * k * m),
        ("matmul folded", torch.matmul, [(b, 3, n, k), (k, m)], 3 * b * n * k * m),
        ("matmul by a vector", torch.matmul, [(b, n, k), (k,)], b * n * k),
        ("einsum", lambda q, p: torch.einsum("bnk,bmk->bnm", q, p), [(b, n, k), (b, m, k)], b * n * k * m),
        ("in place", lambda c, x, y: c.addmm_(x, y), [(n, m), (n, k), (k, m)], n * k * m),
        ("out", lambda c, x, y: torch.mm(x, y, out=c), [(n, m), (n, k), (k, m)], n * k * m),
    ]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("seed", range(3))
def test_matrix_products(seed: int, device: str, mode: Callable[[], AbstractContextManager]):
    with mode(), torch.device(device):
        for name, function, shapes, macs in products(seed):
            counts = count(function, *map(torch.zeros, shapes))
            assert (counts.macs, counts.uncounted_ops) == (macs, ()), name


def test_int8_matrix_product():
    a, b = torch.zeros(17, 8, dtype=torch.int8, device="meta"), torch.zeros(8, 24, dtype=torch.int8, device="meta")
    assert count(torch._int_mm, a, b).macs == 17 * 8 * 24


def direct(dims: int, seed: int) -> tuple[Tensor, Tensor, dict, tuple[int, ...]]:
    """x, weight, settings and the output's shape of a random grouped, strided, dilated, padded convolution."""
    pick = random.Random(seed)
    groups, batch = pick.choice([1, 2, 3, 6]), pick.randint(1, 3)
    c_in, c_out = groups * pick.randint(1, 3), groups * pick.randint(1, 3)
    kernel, stride, dilation, padding = (
        pick.choice([1, 2, 3]),
        pick.choice([1, 2]),
        pick.choice([1, 2]),
        pick.choice([0, 1]),
    )
    side = pick.randint(7, 10)
    out = (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    x, weight = meta(batch, c_in, *[side] * dims), meta(c_out, c_in // groups, *[kernel] * dims)
    return x, weight, settings, (batch, c_out, *[out] * dims)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("seed", range(8))
def test_convolution(seed: int, dims: int, mode: Callable[[], AbstractContextManager]):
    x, weight, settings, out = direct(dims, seed)
    convolve = [F.conv1d, F.conv2d, F.conv3d][dims - 1]
    macs = prod(out) * (x.shape[1] // settings["groups"]) * weight.shape[2] ** dims
    with mode():
        assert count(lambda: convolve(x, weight, **settings)) == Counts(macs, {"aten.convolution": macs}, ())
    assert torch_macs(lambda: convolve(x, weight, **settings)) == macs
    if dims == 2:  # fvcore's grouped 1-D and 3-D handlers are the same, tracing each costs time
        assert (
            fvcore_macs(lambda x, w: convolve(x, w, **settings), torch.zeros(x.shape), torch.zeros(weight.shape))
            == macs
        )


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("seed", range(8))
def test_transposed_convolution(seed: int, dims: int):
    """Each input value meets c_out / groups kernels; stride and dilation change the output's size only."""
    x, weight, settings, _ = direct(dims, seed)
    groups, c_out = settings["groups"], 2 * settings["groups"]
    weight = meta(x.shape[1], c_out // groups, *weight.shape[2:])
    convolve = [F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d][dims - 1]
    macs = x.numel() * 2 * weight.shape[2] ** dims
    with torch.no_grad():
        assert count(lambda: convolve(x, weight, **settings)).macs == macs
        assert torch_macs(lambda: convolve(x, weight, **settings)) == macs


def test_same_padding_and_time_convolution():
    assert count(lambda: F.conv2d(meta(2, 4, 9, 9), meta(6, 4, 3, 3), padding="same")).macs == 2 * 6 * 81 * 4 * 9
    assert count(torch.conv_tbc, meta(10, 2, 4), meta(3, 4, 5), meta(5)).macs == (8 * 2 * 5) * 3 * 4


CONVOLUTION_VARIANTS: list[tuple[str, bool, tuple]] = [
    ("_convolution", False, (None, [2, 2], [1, 1], [1, 1], False, [0, 0], 1, False, False, False, False)),
    ("convolution", True, (None, [2, 2], [1, 1], [1, 1], True, [0, 0], 1)),
    ("_slow_conv2d_forward", False, ([3, 3], None, [2, 2], [1, 1])),
    ("slow_conv_dilated2d", False, ([3, 3], None, [1, 1], [0, 0], [2, 2])),
    ("slow_conv_transpose2d", True, ([3, 3], None, [2, 2])),
    ("mkldnn_convolution", False, (None, [1, 1], [2, 2], [1, 1], 1)),
]


@pytest.mark.parametrize(("name", "transposed", "settings"), CONVOLUTION_VARIANTS)
def test_convolution_variants(name: str, transposed: bool, settings: tuple):
    x, weight = torch.zeros(2, 4, 9, 9), torch.zeros(4, 4, 3, 3)
    results = []
    counts = count(lambda: results.append(getattr(aten, name)(x, weight, *settings)))
    spread = x if transposed else results[0]
    assert counts == Counts(spread.numel() * 4 * 9, {f"aten.{name}": counts.macs}, ())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("mask", [None, "boolean", "causal"])
def test_attention(mask: str | None, device: str, mode: Callable[[], AbstractContextManager]):
    """2 products, counted once, whichever of its decompositions is dispatched, and masks save nothing."""
    batch, heads, length, width = 3, 2, 7, 8
    with mode(), torch.device(device):
        q, k, v = (torch.zeros(batch, heads, length, width) for _ in range(3))
        allowed = torch.ones(length, length, dtype=torch.bool) if mask == "boolean" else None
        counts = count(lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, is_causal=mask == "causal"))
    assert (counts.macs, counts.uncounted_ops) == (2 * batch * heads * length * length * width, ())


def test_attention_of_other_lengths_and_widths():
    q, k, v = meta(2, 3, 7, 8), meta(2, 3, 5, 8), meta(2, 3, 5, 4)
    assert count(F.scaled_dot_product_attention, q, k, v).macs == 2 * 3 * 7 * 5 * (8 + 4)


ATTENTIONS: dict[str, tuple] = {
    "_scaled_dot_product_flash_attention": (),
    "_scaled_dot_product_flash_attention_for_cpu": (),
    "_scaled_dot_product_efficient_attention": (None, True),
    "_scaled_dot_product_cudnn_attention": (None, True),
    "_scaled_dot_product_fused_attention_overrideable": (),
    "_scaled_dot_product_attention_math": (),
}


@pytest.mark.parametrize("name", ATTENTIONS)
def test_attention_overloads(name: str):
    q = torch.empty(2, 3, 16, 8, dtype=torch.float16, device="meta")
    counts = count(getattr(aten, name), q, q, q, *ATTENTIONS[name])
    assert (counts.macs, counts.uncounted_ops) == (2 * 2 * 3 * 16 * 16 * 8, ())


def test_attention_of_packed_sequences_is_listed_not_guessed():
    q, ends = meta(2, 16, 3, 8), torch.empty(3, dtype=torch.int32, device="meta")
    dense = count(lambda: aten._flash_attention_forward(q, q, q, None, None, 16, 16, 0.0, False, False))
    packed = count(lambda: aten._flash_attention_forward(q[0], q[0], q[0], ends, ends, 16, 16, 0.0, False, False))
    assert (dense.macs, dense.uncounted_ops) == (2 * 2 * 3 * 16 * 16 * 8, ())
    assert (packed.macs, packed.uncounted_ops) == (0, ("aten._flash_attention_forward",))


def test_recurrence_decomposes():
    with torch.device("meta"):
        lstm, x = nn.LSTM(4, 5), torch.zeros(3, 2, 4)
    counts = count(lstm, x)
    assert (counts.macs, counts.uncounted_ops) == (3 * 2 * 4 * 5 * (4 + 5), ())


def test_light_operators_cost_nothing():
    def forward(x: Tensor) -> Tensor:
        x = F.gelu(F.layer_norm(x, (8,))) + torch.randn_like(x).abs_()
        x = F.pad(x.roll(1, 1), (1, 1)).softmax(-1)[..., 1:-1].contiguous()
        maps = F.interpolate(x.permute(0, 3, 1, 2), scale_factor=2, mode="bilinear")
        maps = F.avg_pool2d(F.batch_norm(maps, x.new_zeros(8), x.new_ones(8)), 2) + F.max_pool2d(maps, 2)
        patches = F.unfold(maps, 3, padding=1).sort().values.topk(4).values.cumsum(-1).flatten(1)
        return torch.cat([torch.stack([patches, patches.clone().eq_(0)]).mean(0), patches], 1)[:, torch.tensor([0, 2])]

    for mode in MODES:
        with mode():
            assert count(forward, torch.zeros(2, 4, 4, 8)) == Counts(0, {}, ())


@torch.library.custom_op("mixprof_tests::opaque", mutates_args=())
def opaque(x: Tensor) -> Tensor:
    return x @ x


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (torch.fft.fft, "aten._fft_r2c"),
        (torch.linalg.inv, "aten.linalg_inv_ex"),
        (opaque, "mixprof_tests.opaque"),
        (lambda x: F.grid_sample(x[None, None], torch.zeros(1, 4, 4, 2), align_corners=False), "aten.grid_sampler_2d"),
        (lambda x: torch.cdist(x, x), "aten._cdist_forward"),
    ],
)
def test_what_is_not_known_is_named(function: Callable[[Tensor], Tensor], name: str):
    counts = count(lambda x: function(x) + 0 * (x @ x).sum(), torch.eye(4))
    assert name in counts.uncounted_ops
    assert counts.macs == 4**3


def test_tables_do_not_overlap():
    assert not {f"aten.{name}" for name in LIGHT} & set(FORMULAS)


SPELLINGS = {
    "x": {"self", "input"},
    "a": {"self", "batch1", "vec1", "mat1", "mat"},
    "b": {"mat", "mat2", "batch2", "vec", "vec2", "other", "tensor"},
    "bias": {"self", "bias"},
    "gradient": {"grad_out", "grad_out_", "grad_output"},
    "lengths": {"cum_seq_q", "cu_seqlens_q"},
}


@pytest.mark.parametrize("name", FORMULAS)
def test_formulas_read_the_arguments_that_they_mean(name: str):
    """Also for the rows that no kernel here can run: a formula's parameter is the schema's argument of its name."""
    packet = getattr(aten, name.removeprefix("aten."), None)
    if packet is None:
        pytest.skip(f"torch {torch.__version__} has no {name}")
    arguments = getattr(packet, packet.overloads()[0])._schema.arguments
    parameters = [
        p.name for p in inspect.signature(FORMULAS[name]).parameters.values() if p.kind == p.POSITIONAL_OR_KEYWORD
    ]
    for parameter, argument in zip(parameters, arguments, strict=False):
        assert argument.name in SPELLINGS.get(parameter, {parameter}), f"{parameter} reads {argument.name}"


def test_several_inputs_and_outputs_one_forward():
    calls = []

    def forward(x: Tensor, y: Tensor, scale: float) -> dict[str, object]:
        calls.append(scale)
        return {"product": x @ y, "others": (x * scale, [y])}

    counts = count(forward, meta(3, 4), meta(4, 5), 2.0)
    assert calls == [2.0]
    assert (counts.macs, counts.flops) == (60, 120)


# The audit: a network of everything, and the known disagreements of the other counters.
class Everything(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, stride=4)
        self.depthwise = nn.Conv2d(16, 16, 7, padding=3, groups=16)
        self.norm, self.qkv, self.head = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(self.stem(x)).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 4, 4)).permute(2, 0, 3, 1, 4)
        x = (q @ k.transpose(-1, -2)).softmax(-1) @ v
        return self.head(x.transpose(1, 2).flatten(2).mean(1))


EVERYTHING = 2 * (64 * 16 * 3 * 16 + 64 * 16 * 49 + 64 * 16 * 48 + 2 * 64 * 64 * 16 + 16 * 10)


def test_three_counters_agree_on_a_network():
    module, x = Everything().eval(), torch.zeros(2, 3, 32, 32)
    assert count(module, x).macs == EVERYTHING
    assert count(module.to("meta"), x.to("meta")).macs == EVERYTHING
    assert torch_macs(module, x.to("meta")) == EVERYTHING


def test_fvcore_agrees_but_for_the_norm_and_the_mean():
    module = Everything().eval()
    module.register_module("norm", nn.Identity())
    x = torch.zeros(2, 3, 32, 32)
    assert fvcore_macs(module, x) == EVERYTHING == count(module, x).macs


ATTENTION_INPUTS = [torch.zeros(1, 2, 16, 8)] * 3
ATTENTION_MACS = 2 * 2 * 16 * 16 * 8


@pytest.mark.skipif(TORCH not in [(2, 13), (2, 14)], reason="known of torch 2.13 and 2.14 only")
def test_torch_counts_no_attention_on_the_cpu():
    """pytorch issue 195460: no formula for the CPU's kernel."""
    with torch.no_grad():
        assert torch_macs(F.scaled_dot_product_attention, *ATTENTION_INPUTS) == 0
        assert torch_macs(F.scaled_dot_product_attention, *[x.to("meta") for x in ATTENTION_INPUTS]) == ATTENTION_MACS
        assert count(F.scaled_dot_product_attention, *ATTENTION_INPUTS).macs == ATTENTION_MACS


def test_inference_mode():
    """pytorch issue 126268: composite operators arrive whole there, and FlopCounterMode of some versions gave 0."""
    with torch.inference_mode():
        assert count(F.linear, torch.zeros(2, 3), torch.zeros(4, 3)).macs == 24
        if TORCH >= (2, 13):  # this version decomposes them, too
            assert torch_macs(F.linear, torch.zeros(2, 3), torch.zeros(4, 3)) == 24


def test_fvcore_counts_no_attention():
    assert fvcore_macs(F.scaled_dot_product_attention, *ATTENTION_INPUTS) == 0


def unfold_and_sum(x: Tensor, weight: Tensor) -> Tensor:
    """A dynamic 3x3 depth-wise convolution the usual way. x (1, C, H, W), weight (1, C, 9, H * W)."""
    return (F.unfold(x, 3, padding=1).unflatten(1, (x.shape[1], 9)) * weight).sum(2)


def test_all_counters_see_nothing_in_unfold_multiply_sum():
    """Pointwise multiplications are no MACs in an honest table: networks are counted on their matrix products."""
    inputs = torch.zeros(1, 4, 8, 8), torch.zeros(1, 4, 9, 64)
    assert torch_macs(unfold_and_sum, *inputs) == fvcore_macs(unfold_and_sum, *inputs) == 0
    assert count(unfold_and_sum, *inputs).macs == 0

    def product(x: Tensor, weight: Tensor) -> Tensor:
        patches = F.unfold(x, 3, padding=1).unflatten(1, (4, 9)).permute(0, 3, 1, 2).unsqueeze(-2)
        return (patches @ weight.permute(0, 3, 1, 2).unsqueeze(-1)).squeeze()

    assert count(product, *inputs).macs == 4 * 9 * 64


def test_fvcore_counts_batch_norm_at_two_per_element():
    norm = nn.BatchNorm2d(4).eval()
    assert fvcore_macs(norm, torch.zeros(1, 4, 8, 8)) == 2 * 4 * 64
    assert count(norm, torch.zeros(1, 4, 8, 8)) == Counts(0, {}, ())


# The networks: MACs at 224, batch 1, 1000 classes (REFERENCE.md, "Exact counts").
NETWORKS = {
    "swin_t": 4_490_566_656,
    "swin_s": 8_740_875_264,
    "swin_b": 15_430_946_816,
    "dwnet_t": 3_726_862_848,
    "dwnet_b": 12_812_261_376,
    "dynamic_dwnet_t": 3_753_819_648,
    "dynamic_dwnet_b": 12_899_506_176,
    "i_dynamic_dwnet_t": 4_374_133_248,
    "i_dynamic_dwnet_b": 14_340_020_224,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name: str):
    with torch.device("meta"), torch.inference_mode():
        module = models.build(name)
        one, three = count(module, torch.empty(1, 3, 224, 224)), count(module, torch.empty(3, 3, 224, 224))
    assert (one.macs, one.uncounted_ops) == (NETWORKS[name], ())
    assert three.macs == 3 * one.macs
