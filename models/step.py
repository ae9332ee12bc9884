"""One training step in its parts: zero_grad, forward with its loss, backward, optimizer."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mixprof.models import training
from mixprof.models.training import Recipe

RESTING = 1e-12  # the learning rate of timed steps: all the work, and the parameters stay where they were checked
SCALINGS = 24  # halvings of a float16 loss scale before the first step
PARTS = ("zero_grad", "forward", "backward", "optimizer")


class Step:
    """A module's training step on fixed inputs. Every step draws the same labels and random masks.

    module: has the parameters, on its device, in its dtype. call: its outputs, by itself or compiled. at: inputs.
    """

    def __init__(
        self,
        module: nn.Module,
        call: Callable[..., object],
        at: tuple[Tensor, ...],
        recipe: Recipe,
        tensors: Callable[[object], list[Tensor]],  # of whatever the call returns
    ):
        self.module, self.call, self.recipe, self.tensors = module, call, recipe, tensors
        self.at = tuple(tensor.requires_grad_(recipe.within and tensor.is_floating_point()) for tensor in at)
        training.prepare(module, recipe)
        self.device = at[0].device
        self.noise = training.drop_paths(module, len(at[0]) if at[0].dim() else 1, self.device)
        self.generator = torch.Generator(self.device)
        self.loss: Tensor | None = None
        self.drawn: Tensor | None = None  # noise to take in the place of drawing it: a reference's
        self.random = False  # draws numbers of torch's own generator besides
        scaled = recipe.amp is torch.float16
        self.scaler = torch.amp.GradScaler(self.device.type) if scaled else None
        self.criterion: Callable[[list[Tensor]], Tensor] | None = None
        self.optimizer = training.optimizer_of(module.named_parameters(), recipe, RESTING)
        self.update: Callable[[], object] = self.optimizer.step
        self.settle()

    def settle(self) -> None:
        """Run a first forward, which shows whether it draws random numbers, and find a scale without infinities."""
        before = self._random_state()
        self.forward()
        self.random = not torch.equal(before, self._random_state())
        for _ in range(SCALINGS if self.scaler is not None else 0):
            self.zero_grad()
            self.forward()
            self.backward()
            if all(bool(torch.isfinite(gradient).all()) for gradient in self.gradients().values()):
                break
            assert self.scaler is not None
            self.scaler.update(self.scaler.get_scale() / 2)
        self.zero_grad()
        self.loss = None

    def _random_state(self) -> Tensor:
        return torch.get_rng_state() if self.device.type == "cpu" else torch.cuda.get_rng_state(self.device)

    def zero_grad(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        for tensor in self.at:
            tensor.grad = None

    def draw(self) -> None:
        """Draw the masks of a step, the same ones each time."""
        if self.drawn is not None:
            self.noise.copy_(self.drawn)
        elif len(self.noise):
            self.noise.uniform_(generator=self.generator.manual_seed(self.recipe.seed))
        if self.random:
            torch.manual_seed(self.recipe.seed)

    def forward(self) -> None:
        """Outputs and loss, with the graph that a backward takes."""
        self.loss = None  # with what its graph saved
        with torch.autocast(self.device.type, self.recipe.amp, enabled=self.recipe.amp is not None):
            outputs = self.outputs()
            if self.criterion is None:
                self.criterion = training.loss_of(outputs, self.recipe)
            self.loss = self.criterion(outputs)

    def outputs(self) -> list[Tensor]:
        """What the module returns with a step's masks, of that what a loss can be made of."""
        self.draw()
        return training.differentiable(self.tensors(self.call(*self.at)))

    def backward(self) -> None:
        """Gradients of every parameter, scaled where there is a scaler."""
        assert self.loss is not None, "a backward follows a forward"
        (self.loss if self.scaler is None else self.scaler.scale(self.loss)).backward()

    def optimize(self) -> None:
        """Change the parameters by their gradients."""
        if self.scaler is None:
            self.update()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()

    def ahead(self) -> None:
        """What a backward by itself needs."""
        self.zero_grad()
        self.forward()

    def train(self) -> None:
        """A whole step."""
        self.zero_grad()
        self.forward()
        self.backward()
        self.optimize()

    @property
    def parts(self) -> dict[str, Callable[[], None]]:
        """The parts of a whole step, in their order, by the names of PARTS."""
        return dict(zip(PARTS, (self.zero_grad, self.forward, self.backward, self.optimize), strict=True))

    def loss_on_cpu(self) -> Tensor:
        """The loss of one more forward."""
        self.forward()
        assert self.loss is not None
        return self.loss.detach().cpu()

    def rest(self) -> None:
        """As before a step is timed: no gradients, no graph, a rate near 0."""
        self.zero_grad()
        self.loss, self.drawn = None, None
        self.set_rate(RESTING)

    def set_rate(self, rate: float) -> None:
        """Another learning rate: with one near 0 a step does the same work and leaves the parameters as they are."""
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def gradients(self) -> dict[str, Tensor]:
        """Every gradient by its parameter's name, or input's place, unscaled. ValueError for a sparse one."""
        scale = 1.0 if self.scaler is None else self.scaler.get_scale()
        inputs = ((f"input {number}", tensor) for number, tensor in enumerate(self.at))
        named = (*self.module.named_parameters(), *inputs)
        for name, tensor in named:
            if tensor.grad is not None and tensor.grad.layout != torch.strided:
                raise ValueError(
                    f"got a sparse gradient of '{name}', which weight decay and AdamW do not take: use sparse=False"
                )
        return {name: tensor.grad / scale for name, tensor in named if tensor.grad is not None}
