"""How models are trained: drop path, loss, decay, optimizer (Liu et al., arXiv 2103.14030; Han et al., 2106.04263)."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mixprof.models.layers import Residual
from mixprof.models.pyramid import Stage

SMOOTHING = 0.1
LEARNING_RATE = 1e-3  # the papers' 5e-4 for 512 images, at 1,024
WEIGHT_DECAY = 0.05
BETAS, EPSILON = (0.9, 0.999), 1e-8  # of AdamW
MOMENTUM = 0.9  # of SGD
SPARED = ("relative_position_bias_table", "pos_embed", "cls_token")  # by weight decay, besides norms and biases
COMPLEX = "keep it as real and imaginary parts, or freeze it by requires_grad_(False)"
NO_LOSS = (
    "got outputs without a float tensor that depends on a parameter, expected one, or several in a list, a "
    "dict or a dataclass: return what a loss can be made of"
)
NORMS = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True)
class Recipe:
    """How a module is trained, whatever it is."""

    seed: int  # of labels, cotangents and random masks
    optimizer: str = "adamw"  # or "sgd"
    update: str | None = None  # "foreach", "fused", "for"; None: as torch chooses
    amp: torch.dtype | None = None  # of autocast; float16 comes with a gradient scaler
    batch_statistics: bool = True  # batch norms in training mode
    by_stage: bool = False  # what a stage computed is computed again in the backward
    smoothing: float = SMOOTHING
    classifies: bool = False  # scores (B, n) are trained with cross entropy, anything else with a fixed cotangent
    within: bool = False  # a mixer, which stands within a network: its input takes a gradient
    trained: frozenset[str] | None = None  # the parameters that take a gradient; None: all that can


class DropPath(nn.Module):
    """Drop a residual branch for some images and scale it up for the others. (B, ...) -> (B, ...)."""

    noise: Tensor

    def __init__(self, rate: float, noise: Tensor):
        super().__init__()
        self.keep = 1.0 - rate
        self.register_buffer("noise", noise, persistent=False)  # (B,), uniform; one row of the step's

    def forward(self, x: Tensor) -> Tensor:
        kept = torch.lt(self.noise, self.keep).to(x.dtype) / self.keep
        return x * kept.view(-1, *[1] * (x.dim() - 1))


def drop_paths(module: nn.Module, batch: int, device: torch.device) -> Tensor:
    """Give every block its drop paths, rates linear over depth up to the module's own. The noise, (branches, B).

    A first rate of 0 drops nothing and leaves its block as it is. All masks of a step come from one draw of the noise.
    """
    blocks = [part for part in module.modules() if isinstance(part, Residual)]
    rate = float(getattr(module, "drop_path", 0.0)) if blocks else 0.0
    noise = torch.ones(2 * len(blocks) if rate else 0, batch, device=device)
    for number, block in enumerate(blocks):
        own = rate * number / max(len(blocks) - 1, 1)
        if own:
            block.drop1, block.drop2 = (DropPath(own, noise[2 * number + branch]) for branch in (0, 1))
    return noise


def prepare(module: nn.Module, recipe: Recipe) -> None:
    """Training mode and gradients, in place. ValueError for what has nothing to train, or no stages to checkpoint."""
    requires(module.train(), recipe.trained)
    for part in module.modules():
        if isinstance(part, NORMS) and not recipe.batch_statistics:
            part.eval()
    if recipe.by_stage:
        recompute(module)


def requires(module: nn.Module, trained: Collection[str] | None) -> None:
    """Let the parameters of these names take a gradient, or all. ValueError for complex ones, and for none."""
    for name, parameter in module.named_parameters():
        wanted = trained is None or name in trained
        if wanted and parameter.is_complex():
            raise ValueError(f"got a complex parameter '{name}', expected real ones: {COMPLEX}")
        parameter.requires_grad_(wanted and parameter.is_floating_point())
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise ValueError("got a model without a parameter that takes a gradient: nothing to train, use inference")


def recompute(module: nn.Module) -> None:
    """Keep of each stage its input alone, and compute it again in the backward."""
    own = getattr(module, "set_grad_checkpointing", None)  # of timm
    stages = [part for part in module.modules() if isinstance(part, Stage)]
    if own is None and not stages:
        raise ValueError("got checkpoint=stages for a model without stages: leave it out")
    if own is not None:
        own()
    for stage in stages:
        stage.forward = partial(checkpoint, stage.forward, use_reentrant=False, preserve_rng_state=False)  # type: ignore[method-assign]


def decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay is for this parameter: not for norms, biases and position tables, as in the papers' code."""
    return parameter.dim() > 1 and not name.endswith(".bias") and not any(spared in name for spared in SPARED)


def optimizer_of(
    parameters: Iterable[tuple[str, nn.Parameter]], recipe: Recipe, rate: float | Tensor = LEARNING_RATE
) -> torch.optim.Optimizer:
    """AdamW or SGD over named parameters that take gradients, in two groups by whether they decay."""
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in parameters:
        if parameter.requires_grad:
            groups[decays(name, parameter)].append(parameter)
    listed = [{"params": own, "weight_decay": WEIGHT_DECAY * decay} for decay, own in groups.items() if own]
    update = {} if recipe.update is None else {"foreach": recipe.update == "foreach", "fused": recipe.update == "fused"}
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(listed, lr=rate, momentum=MOMENTUM, **update)
    return torch.optim.AdamW(listed, lr=rate, betas=BETAS, eps=EPSILON, **update)


def differentiable(outputs: Iterable[Tensor]) -> list[Tensor]:
    """The outputs that a loss can be made of, complex ones as pairs of real numbers. ValueError for none."""
    floats = [output for output in outputs if output.is_floating_point() or output.is_complex()]
    kept = [torch.view_as_real(y) if y.is_complex() else y for y in floats if y.requires_grad]
    if not kept:
        raise ValueError(NO_LOSS)
    return kept


def loss_of(outputs: Iterable[Tensor], recipe: Recipe) -> Callable[[list[Tensor]], Tensor]:
    """The loss for outputs like these, as a function of them.

    Scores of a classifier: cross entropy with smoothed labels, which are drawn once. Anything else: the sum over its
    outputs of mean(output * cotangent), the cotangents standard normal and drawn once.
    """
    outputs = list(outputs)
    generator = torch.Generator().manual_seed(recipe.seed)
    if recipe.classifies and len(outputs) == 1 and outputs[0].dim() == 2 and outputs[0].shape[1] > 1:
        scores = outputs[0]
        labels = torch.randint(scores.shape[1], (len(scores),), generator=generator).to(scores.device)
        return lambda made: F.cross_entropy(made[0], labels, label_smoothing=recipe.smoothing)
    cotangents = [torch.randn(output.shape, generator=generator).to(output) for output in outputs]
    return lambda made: torch.stack([(y * c).mean() for y, c in zip(made, cotangents, strict=True)]).sum()
