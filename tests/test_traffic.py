"""Minimal bytes against closed forms written by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixprof import models
from mixprof.metrics.flops import count

B, H, W, K, C, G = 2, 9, 13, 5, 64, 32
N, HEADS = H * W, C // 32
PADDED = 10 * 15  # positions, to multiples of the window


def meta(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta")


def values(forward: object, *inputs: Tensor) -> list[tuple[str, int]]:
    """Name and minimal number of float32 values of each operator."""
    with torch.inference_mode():
        return [(each.name, each.min_bytes // 4) for each in count(forward, *inputs).operators]  # type: ignore[arg-type]


def test_an_operand_that_was_moved_costs_what_it_was_made_of():
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        patches = F.unfold(F.pad(x, (1, 1, 1, 1)), 3)  # (2, 4 * 9, 49)
        return weight.expand(2, 5, 36) @ patches

    assert values(forward, meta(2, 4, 7, 7), meta(5, 36)) == [("aten.bmm", 2 * 4 * 49 + 5 * 36 + 2 * 5 * 49)]


def test_a_part_of_a_tensor_costs_that_part_and_an_operand_used_twice_costs_once():
    def forward(x: Tensor) -> Tensor:
        half = x[:, :8]
        return half @ half.t()

    assert values(forward, meta(16, 32)) == [("aten.mm", 16 * 8 + 16 * 16)]


def test_numbers_cost_nothing_and_a_norm_is_read_as_it_is():
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        mask = (torch.arange(6, device="meta") > 2).to(x.dtype)
        return F.layer_norm(F.pad(x, (0, 2)), (6,)) @ (weight.repeat(2, 1) * mask[:, None])

    assert values(forward, meta(5, 4), meta(3, 7)) == [("aten.mm", 5 * 6 + 3 * 7 + 5 * 7)]


def test_a_bias_belongs_to_its_product_however_it_is_added():
    x, weight, bias = meta(6, 4), meta(4, 5), meta(5)
    cost = 6 * 4 + 4 * 5 + 5 + 6 * 5
    for forward in (
        lambda x: torch.addmm(bias, x, weight),
        lambda x: (x @ weight).add_(bias),
        lambda x: bias * (x @ weight),
    ):
        assert [size for _, size in values(forward, x)] == [cost]


def in_place(x: Tensor, weight: Tensor) -> Tensor:
    padded = x.new_zeros(4, 10)
    padded[:, 1:9] = x
    return torch.mm(padded.relu_(), weight, out=x.new_empty(4, 3))


def test_in_place_and_out():
    assert values(in_place, meta(4, 8), meta(10, 3)) == [("aten.mm", 4 * 8 + 10 * 3 + 4 * 3)]


@pytest.mark.parametrize("formulation", ["explicit", "sdpa", "baddbmm"])
def test_attention_is_one_operator_whatever_its_formulation(formulation: str):
    module = models.build(f"window_attention:attention={formulation}", resolution=(H, W), window=K, channels=C)
    found = count(module.to("meta"), meta(B, H, W, C)).operators
    assert [each.name for each in found] == ["aten.addmm", "attention", "aten.addmm"]
    assert [each.module for each in found] == ["qkv", "", "proj"]
    assert [each.min_bytes // 4 for each in found] == [
        B * N * C + 3 * C * C + 3 * C + B * PADDED * 3 * C,
        4 * B * PADDED * C + (2 * K - 1) ** 2 * HEADS,
        B * PADDED * C + C * C + C + B * PADDED * C,
    ]
    assert found[1].macs == 2 * B * PADDED * K**2 * C


def test_a_shifted_window_costs_no_more():
    plain, shifted = (
        count(models.build(name, resolution=(H, W), window=K, channels=C).to("meta"), meta(B, H, W, C)).min_bytes
        for name in ("window_attention", "window_attention:shifted=true")
    )
    assert plain == shifted


POINTWISE = 4 * B * N * C + 2 * C * C  # the two 1x1 convolutions of a depth-wise block
BYTES = {
    "pointwise_conv": 2 * B * N * C + C * C + C,
    "conv": 2 * B * N * C + K**2 * C * C + C,
    "depthwise_conv": POINTWISE + 2 * B * N * C + K**2 * C + C,
    "dynamic_depthwise_conv": (
        (POINTWISE + B * C + C * C // 4 + B * C // 4)
        + (B * C // 4 + K**2 * C * C // 4 + K**2 * C + B * K**2 * C)
        + (2 * B * N * C + B * K**2 * C + C)
    ),
    "inhomogeneous_depthwise_conv": (
        (POINTWISE + B * N * C + C * C // 4 + C // 4 + B * N * C // 4)
        + (B * N * C // 4 + K**2 * G * C // 4 + K**2 * G + B * N * K**2 * G)
        + (B * N * K**2 * G + 2 * B * N * C)
    ),
    "global_attention": (4 * C * C + 4 * C) + B * N * C * (1 + 3 + 3 + 1 + 1 + 1),
    "local_mlp": 2 * (2 * B * N * C + C * C + C) + N * K**2 * HEADS + 2 * B * N * C,
    "neighborhood_attention": (4 * C * C + 4 * C) + B * N * C * (1 + 3 + 3 + 1 + 1 + 1) + K**2 * HEADS,
    "spatial_mlp": N * N + N + 2 * B * N * C,
}


@pytest.mark.parametrize("name", BYTES)
def test_mixers(name: str):
    module = models.build(name, resolution=(H, W), window=K, channels=C).to("meta")
    assert count(module, meta(B, H, W, C)).min_bytes == 4 * BYTES[name]
    assert count(module.half(), meta(B, H, W, C).half()).min_bytes == 2 * BYTES[name]


def test_paths_of_modules():
    module = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 5))).to("meta")
    assert [each.module for each in count(module, meta(2, 3)).operators] == ["0", "1.1"]
