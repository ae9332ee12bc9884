"""A training step: what is right, and what is wrong and has to be caught."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixprof.data.case import Case
from mixprof.data.errors import Unsupported
from mixprof.lowerings.training import step_of
from mixprof.lowerings.trees import tensors_of
from mixprof.metrics import accuracy, gradients
from mixprof.models import build, training
from mixprof.models.dwnet import DWNet
from mixprof.models.mixers.depthwise_conv import DepthwiseConv
from mixprof.models.step import PARTS, Step
from mixprof.models.swin import Swin
from mixprof.models.training import Recipe
from mixprof.worker import training as worker

RECIPE = Recipe(seed=5, classifies=True)


def tiny(family: type = Swin, mixer: str = "window_attention") -> Any:
    """A network of two stages with a drop path of 0.5, awake."""
    from mixprof.models.mixers.window_attention import WindowAttention

    torch.manual_seed(1)
    mixers = {"window_attention": WindowAttention, "depthwise_conv": DepthwiseConv}
    module = family((32, 32), 3, 10, mixer=mixers[mixer], dim=32, depths=(2, 2), drop_path=0.5)
    accuracy.initialize(module.eval(), (torch.randn(1, 3, 32, 32),), 3)
    return module


def case_of(lowering: str = "eager", dtype: str = "float32", step: str = "train") -> Case:
    return Case("tiny", lowering, "cpu", dtype, "contiguous", "hot", 4, (32, 32), None, None, step)


def judged(make: Callable[[], nn.Module], spoil: Callable[[Step], None] = lambda step: None, **more: Any) -> str:
    """What is wrong with a step that was spoilt, by a launch's own check; "" where nothing is."""
    inputs, case = [torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(2))], case_of()
    module = make()
    names = tuple(name for name, _ in module.named_parameters())
    right = worker.right_of(module, inputs, case, False, names)
    recipe = replace(worker.recipe(case, names, within=False), **more)
    timed = make()
    step = step_of(timed, tuple(inputs), recipe, timed)
    spoil(step)
    for _ in range(2):
        step.zero_grad()
        step.forward()
        step.backward()
    errors = gradients.compare(step, right)
    return errors.wrong or gradients.update(step).wrong or ""


@pytest.mark.parametrize("family", ["swin", "dwnet"])
def test_a_step_of_a_network_is_right(family):
    make = (lambda: tiny()) if family == "swin" else (lambda: tiny(DWNet, "depthwise_conv"))
    assert judged(make) == ""
    assert judged(make, by_stage=True) == ""
    assert judged(make, update="foreach") == ""
    assert judged(make, update="fused") == ""


class DropsItsBias(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        return grad @ weight, grad.flatten(0, -2).t() @ x.flatten(0, -2), grad.new_zeros(len(weight))


def drops_bias(step: Any) -> None:
    """A mixer whose backward drops its bias."""
    proj = step.module.layers[1].blocks[1].attn.proj
    proj.forward = lambda x: DropsItsBias.apply(x, proj.weight, proj.bias)


def detaches(step: Any) -> None:
    """A branch that is cut from the graph of what is before it."""
    mlp = step.module.layers[0].blocks[1].mlp
    own = mlp.forward
    mlp.forward = lambda x: own(x.detach())


def decays_norms(step: Step) -> None:
    for group in step.optimizer.param_groups:
        group["weight_decay"] = training.WEIGHT_DECAY


def other_rate(step: Step) -> None:
    for each in step.module.modules():
        if isinstance(each, training.DropPath):
            each.keep -= 0.1


def other_masks(step: Step) -> None:
    step.recipe = replace(step.recipe, seed=6)


def keeps_gradients(step: Step) -> None:
    step.zero_grad = lambda: None  # type: ignore[method-assign]


def no_correction(step: Step) -> None:
    """Adam without its bias correction: as if a hundred thousand steps had been made."""
    for each in step.module.parameters():
        step.optimizer.state[each] = {
            "step": torch.tensor(0.0), "exp_avg": torch.zeros_like(each), "exp_avg_sq": torch.zeros_like(each)
        }  # fmt: skip
    own = step.update

    def update() -> None:
        for each in step.module.parameters():
            step.optimizer.state[each]["step"].fill_(1e5)
        own()

    step.update = update


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (drops_bias, "gradient of layers.1.blocks.1.attn.proj.bias"),
        (detaches, "none where one is"),
        (decays_norms, "update of"),
        (other_rate, "relative error of the loss"),
        (other_masks, "relative error of the loss"),
        (keeps_gradients, "gradient of"),
        (no_correction, "update of"),
    ],
    ids=lambda each: each.__name__ if callable(each) else "",
)
def test_a_wrong_step_is_caught(spoil, words):
    assert words in judged(tiny, spoil)


def test_label_smoothing_left_out_is_caught():
    assert "relative error of the loss" in judged(tiny, smoothing=0.0)


def test_batch_norms_that_take_running_statistics_are_caught():
    assert judged(lambda: tiny(DWNet, "depthwise_conv"), batch_statistics=False) != ""


def test_a_loss_of_nan_is_said():
    def poison(step: Any) -> None:
        with torch.no_grad():
            step.module.head.bias.fill_(math.nan)

    assert "NaN" in judged(tiny, poison)


def test_gradients_are_those_of_finite_differences():
    """The reference itself: the derivative of the loss along a direction, in float64."""
    module = tiny().double()
    inputs = (torch.randn(2, 3, 32, 32, dtype=torch.float64),)
    step: Any = Step(module, module, inputs, RECIPE, tensors_of)
    step.ahead()
    step.backward()
    own, direction = step.gradients(), {}
    generator, slope = torch.Generator().manual_seed(0), 0.0
    for name, each in module.named_parameters():
        direction[name] = torch.randn(each.shape, generator=generator, dtype=torch.float64)
        slope += float((direction[name] * own[name]).sum())

    def loss_at(distance: float) -> float:
        with torch.no_grad():
            for name, each in module.named_parameters():
                each.add_(distance * direction[name])
        step.forward()
        with torch.no_grad():
            for name, each in module.named_parameters():
                each.sub_(distance * direction[name])
        return float(step.loss.detach())

    assert (loss_at(1e-6) - loss_at(-1e-6)) / 2e-6 == pytest.approx(slope, rel=1e-5)


def test_drop_paths_have_linear_rates_and_masks_of_the_step():
    module = tiny()
    step: Any = Step(module, module, (torch.randn(4, 3, 32, 32),), RECIPE, tensors_of)
    kept = [each.keep for each in module.modules() if isinstance(each, training.DropPath)]
    assert kept == pytest.approx([1 - 0.5 * n / 3 for n in (1, 1, 2, 2, 3, 3)])
    step.forward()
    first = step.noise.clone()
    assert len(torch.unique(first)) == first.numel()
    step.forward()
    assert torch.equal(step.noise, first)
    drop = module.layers[1].blocks[1].drop2
    out = drop(torch.ones(4, 2, 2, 8))
    assert torch.equal(out[:, 0, 0, 0], torch.where(first[-1] < 0.5, 2.0, 0.0))


@pytest.mark.parametrize(("name", "rate"), [("swin_t", 0.2), ("dwnet_t", 0.2), ("dwnet_b", 0.5)])
def test_networks_have_the_papers_rates(name, rate):
    with torch.device("meta"):
        assert build(name, resolution=32).drop_path == rate


def test_weight_decay_spares_norms_biases_and_tables():
    module = tiny()
    with_decay = {name for name, each in module.named_parameters() if training.decays(name, each)}
    assert all(name.endswith("weight") and "norm" not in name for name in with_decay)
    assert sum("attn.qkv.weight" in name for name in with_decay) == 4


def test_a_step_repeats_its_loss_and_leaves_the_parameters_where_they_are():
    module = tiny(DWNet, "depthwise_conv")
    module.head = nn.Sequential(nn.Dropout(0.5), module.head)
    step: Any = Step(module, module, (torch.randn(4, 3, 32, 32),), RECIPE, tensors_of)
    assert step.random
    before, losses = [each.clone() for each in module.parameters()], []
    for _ in range(3):
        step.train()
        losses.append(float(step.loss.detach()))
    assert len(set(losses)) == 1
    assert all(torch.allclose(*pair, atol=1e-9, rtol=0) for pair in zip(before, module.parameters(), strict=True))
    assert tuple(step.parts) == PARTS


def test_a_scaler_finds_a_scale_without_infinities():
    module = nn.Linear(4, 4)
    step: Any = Step(
        module, lambda x: module(x) * 1e6, (torch.ones(2, 4),), replace(RECIPE, amp=torch.float16), tensors_of
    )
    assert step.scaler is not None
    assert step.scaler.get_scale() < 65536
    step.train()
    assert all(bool(torch.isfinite(each).all()) for each in module.parameters())


def outputs_of(value: Callable[[Tensor], object]) -> None:
    module = nn.Linear(3, 3)
    step_of(module, (torch.ones(2, 3),), RECIPE, lambda x: value(module(x)))


def test_any_output_that_depends_on_a_parameter_trains():
    for value in (lambda y: {"a": y, "n": y.argmax()}, lambda y: [y, (y.sum(), "text")], lambda y: torch.complex(y, y)):
        outputs_of(value)


@pytest.mark.parametrize("value", [lambda y: y.argmax(1), lambda y: "text", lambda y: y.detach()])
def test_outputs_without_a_loss_are_said(value):
    with pytest.raises(Unsupported, match="expected one, or several in a list"):
        outputs_of(value)


def test_what_cannot_be_trained_is_said():
    with pytest.raises(Unsupported, match="nothing to train"):
        step_of(nn.ReLU(), (torch.ones(2, 3),), RECIPE, nn.ReLU())
    with pytest.raises(Unsupported, match="checkpoint=stages for a model without stages"):
        step_of(nn.Linear(3, 3), (torch.ones(2, 3),), replace(RECIPE, by_stage=True), nn.Linear(3, 3))
    norm = nn.BatchNorm1d(3)
    with pytest.raises(Unsupported, match="--batches 2"):
        step_of(norm, (torch.ones(1, 3),), RECIPE, norm)


class Spectral(nn.Module):
    """Complex parameters beside real ones: a step that left them out would be another, faster step."""

    def __init__(self):
        super().__init__()
        self.scale, self.mask = nn.Linear(8, 8), nn.Parameter(torch.randn(8, dtype=torch.cfloat))

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.ifft(torch.fft.fft(self.scale(x)) * self.mask).real


class Writes(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mul_(2.0))


class Rectifies(nn.Linear):
    """Writes what it finds there the next time: every forward is the first."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.relu_(x))


def right_of(module: nn.Module, inputs: Tensor) -> gradients.Right:
    names = tuple(name for name, each in module.named_parameters() if each.requires_grad)
    return worker.right_of(module, [inputs], case_of(), False, names)


@pytest.mark.parametrize(
    ("module", "inputs", "words"),
    [
        (Spectral(), torch.ones(2, 8), "complex parameter 'mask'"),
        (
            nn.Sequential(nn.EmbeddingBag(9, 4, sparse=True)),
            torch.ones(2, 3, dtype=torch.int64),
            "sparse gradient of '0.weight'",
        ),
        (Writes(8, 8), torch.ones(2, 8), "writes into its inputs"),
    ],
)
def test_what_an_optimizer_or_a_second_step_cannot_take_is_said(module, inputs, words):
    with pytest.raises(Unsupported, match=words) as caught:
        right_of(module, inputs)
    assert "\n" not in str(caught.value)


def test_a_frozen_complex_parameter_and_a_write_that_changes_nothing_train():
    frozen = Spectral()
    frozen.mask.requires_grad_(False)
    assert set(right_of(frozen, torch.ones(2, 8)).gradients) == {"scale.weight", "scale.bias"}
    assert right_of(Rectifies(8, 8), torch.randn(2, 8)).loss != 0


def test_the_mixed_tolerances_are_their_dtypes():
    assert accuracy.TOLERANCES["amp_float16"] == accuracy.TOLERANCES["float16"]
