"""Costs of a training step against closed forms of every mixer's input and weight gradient, written by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import ceil

import pytest
import torch
from torch import Tensor, nn

from mixprof import models
from mixprof.cli.main import main
from mixprof.data.errors import Unsupported
from mixprof.metrics import step_costs

B, H, W, K, C, G = 2, 9, 13, 5, 64, 32
N = H * W
P = 10 * 15  # positions, to multiples of the window
M, R = ceil(H / 8) * ceil(W / 8), 64  # positions and values of each after a spatial reduction by 8
GENERATOR = C // 4 * K**2  # products of the channels of a dynamic mixer's generator with its kernels

# MACs per image: of the gradients that lead to the input, and of those of the weights.
GRADIENTS = {
    "window_attention": (4 * P * C**2 + 4 * P * K**2 * C, 4 * P * C**2),
    "global_attention": (4 * N * C**2 + 4 * N**2 * C, 4 * N * C**2),
    "spatial_reduction_attention": ((2 * N + M * R + 2 * M) * C**2 + 4 * N * M * C, (2 * N + M * R + 2 * M) * C**2),
    "neighborhood_attention": (4 * N * C**2 + 4 * N * K**2 * C, 4 * N * C**2),
    "conv": (N * K**2 * C**2, N * K**2 * C**2),
    "pointwise_conv": (N * C**2, N * C**2),
    "depthwise_conv": (2 * N * C**2 + N * K**2 * C, 2 * N * C**2 + N * K**2 * C),
    "dynamic_depthwise_conv": (
        2 * N * C**2 + 2 * N * K**2 * C + C**2 // 4 + C * GENERATOR,
        2 * N * C**2 + C**2 // 4 + C * GENERATOR,
    ),
    "inhomogeneous_depthwise_conv": (
        2 * N * C**2 + 2 * N * K**2 * C + N * C**2 // 4 + N * G * GENERATOR,
        2 * N * C**2 + N * C**2 // 4 + N * G * GENERATOR,
    ),
    "local_mlp": (2 * N * C**2 + N * K**2 * C, 2 * N * C**2 + N * K**2 * C),
    "spatial_mlp": (N**2 * C, N**2 * C),
}


def on_meta(name: str, **sizes: object) -> nn.Module:
    with torch.device("meta"):
        return step_costs.prepare(models.build(name, **sizes))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", GRADIENTS)
def test_a_backward_counts_the_gradients_of_input_and_weights(name):
    to_input, of_weights = (B * macs for macs in GRADIENTS[name])
    mixer, x = on_meta(name, resolution=(H, W), window=K, channels=C), torch.empty(B, H, W, C, device="meta")
    needed = step_costs.count("backward", mixer, [x.requires_grad_()], mixer)
    assert needed.backward_macs == needed.macs == to_input + of_weights
    assert needed.uncounted_ops == ()
    assert sum(operator.macs for operator in needed.operators) == needed.macs
    mixer.requires_grad_(False)
    frozen = step_costs.count("backward", mixer, [x], mixer)
    assert frozen.macs == to_input


@pytest.mark.parametrize("name", ["swin_t", "i_dynamic_dwnet_t"])
def test_a_network_needs_no_gradient_of_its_images(name):
    network = on_meta(name, resolution=64)
    images = torch.empty(2, 3, 64, 64, device="meta")
    forward, train = (step_costs.count(step, network, [images], network) for step in ("forward", "train"))
    embedding = 2 * 16 * 16 * 3 * 4 * 4 * 96
    assert train.backward_macs == 2 * forward.macs - embedding
    assert train.macs == forward.macs + train.backward_macs
    stage = [each for each in train.operators if each.module.startswith("layers.0.blocks.0.mlp.fc1")]
    assert [each.name for each in stage if each.macs] == ["aten.addmm", *2 * ["backward aten.mm"]]


def test_bytes_of_a_step_are_each_operand_once_and_seven_values_of_a_parameter():
    linear, x = step_costs.prepare(nn.Linear(7, 5).to("meta")), torch.empty(3, 7, device="meta").requires_grad_()
    counts = step_costs.count("train", linear, [x], linear, update_bytes=28)
    forward = 7 * 5 + 5 + 3 * 7 + 3 * 5
    to_input, of_weight = 3 * 5 + 7 * 5 + 3 * 7, 3 * 5 + 3 * 7 + 7 * 5
    assert counts.min_bytes == 4 * (forward + to_input + of_weight + 7 * (7 * 5 + 5))


def test_an_attentions_backward_reads_what_its_forward_read_and_never_writes_scores():
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (q @ k.mT).softmax(-1) @ v

    q, k, v = (torch.empty(2, 9, width, device="meta").requires_grad_() for width in (4, 4, 6))
    operators = step_costs.count("backward", attend, [q, k, v], nn.Identity()).operators
    assert [each.name for each in operators] == ["backward attention"]
    (backward,) = operators
    assert backward.macs == 2 * 9 * 9 * (2 * 4 + 2 * 6)
    assert backward.min_bytes == 4 * 2 * 9 * (2 * (4 + 4 + 6) + 6)  # three read and three written; one gradient read


def test_what_cannot_be_trained_is_told():
    alone: Callable[[Tensor], Tensor] = torch.relu
    with pytest.raises(Unsupported, match="a float tensor that depends on a parameter"):
        step_costs.count("train", alone, [torch.empty(2, device="meta")], nn.Identity())
    generator = on_meta("dynamic_depthwise_conv", resolution=8)
    with pytest.raises(Unsupported, match="use --batches 2"):
        step_costs.count("train", generator, [torch.empty(1, 8, 8, 96, device="meta")], generator)


def test_count_of_a_step_on_the_command_line(capfd):
    assert main(["count", "depthwise_conv", "--resolution", "8", "--step", "train", "--json"]) == 0
    counted = json.loads(capfd.readouterr().out)
    forward = 8 * 8 * (2 * 96**2 + 49 * 96)
    assert (counted["step"], counted["macs"], counted["backward_macs"]) == ("train", 3 * forward, 2 * forward)
    assert counted["optimizer_bytes"] == 7 * 4 * counted["params"]
    assert main(["count", "swin_t", "--step", "sleep"]) == 2
    assert "expected one of inference, forward, backward, train" in capfd.readouterr().err


class Unused(nn.Linear):
    """Has a layer that no output depends on: it has no gradient, and no optimizer updates it."""

    def __init__(self, size: int):
        super().__init__(size, size)
        self.other = nn.Linear(size, size)


def test_what_has_no_gradient_is_not_updated():
    module = step_costs.prepare(Unused(4).to("meta"))
    counts = step_costs.count("train", module, [torch.empty(2, 4, device="meta")], module, update_bytes=1)
    updates = [each.min_bytes for each in counts.operators if each.name == step_costs.UPDATE]
    assert sum(updates) == 4 * 4 + 4


@pytest.mark.parametrize(
    ("value", "words"), [(lambda y: y.argmax(1), "outputs without a float"), (None, "nothing to train")]
)
def test_a_count_says_what_a_step_says(value, words):
    def count() -> None:
        module = step_costs.prepare(nn.Linear(4, 4) if value else nn.ReLU())
        step_costs.count("train", lambda x: value(module(x)), [torch.ones(2, 4)], module)

    with pytest.raises(Unsupported, match=words):
        count()
