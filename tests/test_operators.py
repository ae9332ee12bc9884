"""Operators of a forward against closed forms, the table of mixers, and what really runs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mixprof import models
from mixprof.metrics.operators import Operator, Watch, breakdown, timed, trace

B, H, W, K, C = 2, 14, 21, 7, 64
N, HEADS = H * W, C // 32
PROJECTIONS = N * C * C  # MACs of one 1x1 over the map
# Mixer MACs per block at 224, millions, stages 1 to 4: published figures, see the README of the paper's code
PER_BLOCK = {
    "swin_t": (145.1, 130.4, 123.0, 119.3),
    "dwnet_t": (72.6, 65.2, 61.5, 59.6),
    "dynamic_dwnet_t": (72.7, 65.6, 63.3, 67.0),
}
TOTAL = {"swin_t": 4_490_566_656, "dwnet_t": 3_726_862_848, "dynamic_dwnet_t": 3_753_819_648}
DEPTHS = (2, 2, 6, 2)


def meta(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta")


def mixer(name: str) -> nn.Module:
    return models.build(name, resolution=(H, W), window=K, channels=C, lowering="eager")


def macs(found: list[Operator], kind: str) -> int:
    return sum(each.macs for each in found if each.kind == kind)


def moved(found: list[Operator], *names: str) -> list[tuple[int, int]]:
    """Float32 values that the operators of these names read and write."""
    return [(each.read_bytes // 4, each.written_bytes // 4) for each in found if each.name in names]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_depthwise_block_multiplies_on_both_units(device):
    found = trace(mixer("depthwise_conv").to("meta"), meta(B, H, W, C), device=device)
    assert macs(found, "matrix") == B * 2 * PROJECTIONS
    assert macs(found, "vector") == B * N * K**2 * C
    (spatial,) = [each for each in found if each.kind == "vector"]
    assert (spatial.path, spatial.role) == ("conv", "mixer")
    assert spatial.weight_bytes // 4 == K**2 * C + C
    assert sum(each.weight_bytes for each in found) // 4 == 2 * C**2 + K**2 * C + 3 * C  # the batch norms are folded
    assert (spatial.read_bytes // 4, spatial.written_bytes // 4) == (B * N * C + K**2 * C + C, B * N * C)


def test_a_fused_attention_is_one_operator():
    found = trace(mixer("window_attention").to("meta"), meta(B, H, W, C), device="cuda")
    (attention,) = [each for each in found if "attention" in each.name]
    assert (attention.kind, attention.macs) == ("matrix", B * 2 * N * K**2 * C)  # the window divides the map
    assert attention.written_bytes // 4 == B * N * C
    assert attention.read_bytes // 4 == 3 * B * N * C + HEADS * K**4
    assert macs(found, "matrix") == B * (4 * PROJECTIONS + 2 * N * K**2 * C)
    assert {each.role for each in found if each.name == "aten.clone"} == {"reshape"}


def test_explicit_attention_writes_its_logits():
    found = trace(mixer("window_attention:attention=explicit").to("meta"), meta(B, H, W, C), device="cuda")
    logits = B * N * K**2 * HEADS
    assert moved(found, "aten.bmm") == [(2 * B * N * C, logits), (logits + B * N * C, B * N * C)]
    assert moved(found, "aten._softmax") == [(logits, logits)]


def test_a_broadcast_is_read_once_a_view_costs_nothing_and_a_factory_writes_nothing():
    class Module(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            total = x.new_empty(5, 4)
            return torch.add(x[:1].expand(5, 4), 1.0, out=total).t()

    found = trace(Module(), meta(3, 4))
    assert [(each.name, each.kind, each.macs) for each in found] == [("aten.add", "move", 0)]
    assert moved(found, "aten.add") == [(4, 20)]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("name", TOTAL)
def test_networks_by_role_and_stage(name, device):
    """Kernels that make kernels are the mixer's in the published table."""
    found = trace(models.build(name, lowering="eager").to("meta"), meta(1, 3, 224, 224), device=device)
    assert sum(each.macs for each in found) == TOTAL[name]
    for stage, (depth, millions) in enumerate(zip(DEPTHS, PER_BLOCK[name], strict=True), 1):
        roles = ("mixer", "generator", "reshape")
        of_mixer = sum(each.macs for each in found if each.stage == stage and each.role in roles)
        assert of_mixer / depth == pytest.approx(millions * 1e6, abs=0.05e6)
        side, width = 56 // 2 ** (stage - 1), 96 * 2 ** (stage - 1)
        assert sum(each.macs for each in found if each.stage == stage and each.role == "mlp") == (
            depth * 8 * side**2 * width**2
        )
    assert sum(each.macs for each in found if each.role == "head") == 768 * 1000
    assert sum(each.macs for each in found if each.role == "embed") == 56**2 * 96 * 48
    assert {each.role for each in found} >= {"mixer", "mlp", "merge", "embed", "head", "norm", "other"}
    assert ("generator" in {each.role for each in found}) == name.startswith("dynamic")


@pytest.mark.parametrize(
    "name",
    ["window_attention:shifted=true", "dynamic_depthwise_conv", "inhomogeneous_depthwise_conv", "global_attention"],
)
def test_what_is_foretold_on_meta_is_what_really_runs(name):
    module, x = mixer(name), torch.randn(B, H, W, C)
    watch = Watch(module)
    with torch.inference_mode():
        runs = timed(lambda: module(x), watch, "cpu", 2)
    foretold = trace(mixer(name).to("meta"), meta(B, H, W, C))
    assert len(runs) == 2
    for run in runs:
        assert all(each.ms is not None and each.ms >= 0 for each in run)
        assert [(e.name, e.role, e.kind, e.macs) for e in run] == [(e.name, e.role, e.kind, e.macs) for e in foretold]
        assert [(e.read_bytes, e.written_bytes) for e in run] == [(e.read_bytes, e.written_bytes) for e in foretold]


def test_a_breakdown_sums_over_operators_and_takes_the_median_over_forwards():
    def run(*ms: float) -> list[Operator]:
        places = [("mixer", 1), ("mixer", 1), ("mlp", 1), ("mixer", None)]
        return [
            Operator("aten.mm", "", role, stage, "matrix", 10, 3, 2, 1, each)
            for (role, stage), each in zip(places, ms, strict=True)
        ]

    rows = breakdown([run(1, 2, 3, 4), run(2, 2, 3, 4), run(90, 9, 30, 4)])
    assert rows == [
        {"stage": 1, "role": "mixer", "ms": 4, "macs": 20, "bytes": 10, "kernels": 2},
        {"stage": 1, "role": "mlp", "ms": 3, "macs": 10, "bytes": 5, "kernels": 1},
        {"stage": None, "role": "mixer", "ms": 4, "macs": 10, "bytes": 5, "kernels": 1},
    ]
