"""Memory of a training step at its peak, by category: measured on the device, or predicted on fake tensors.

Storages are followed from birth to death, and each has a category: what autograd saves for the backward is an
activation, what a parameter's `.grad` holds a gradient, anything else a temporary. Weights and the optimizer's state
stand throughout. The inputs are not included: they are the data loader's.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mixprof.data.launch import StepMemory
from mixprof.metrics import Subject, memory_plan
from mixprof.metrics.flops import entered_modules
from mixprof.metrics.memory_plan import Liveness
from mixprof.metrics.workspaces import WORKSPACES, nbytes
from mixprof.models.step import Step

ACTIVATIONS, GRADIENTS, TEMPORARIES = "activations", "gradients", "temporaries"


class Ledger(Liveness):
    """A liveness whose storages have categories, as they were at its peak."""

    def __init__(self, workspaces: Mapping[str, Callable[..., int]], *, fake: bool) -> None:
        super().__init__(workspaces, fake=fake)
        self.of: dict[int, str] = {}  # a storage's category, where it is no temporary
        self.by: Counter[str] = Counter()  # bytes alive
        self.at_peak: Counter[str] = Counter()

    def mark(self, tensor: Tensor, category: str) -> int:
        """Give a tensor's storage a category, if it has none and was made in the step: its bytes, else 0."""
        if tensor.layout != torch.strided:
            return 0
        storage = tensor.untyped_storage()
        key, nbytes = storage._cdata, storage.nbytes()
        if key not in self.alive or self.of.get(key) == category:
            return 0
        if key in self.of:
            self.by[self.of[key]] -= nbytes
        self.of[key] = category
        self.by[category] += nbytes
        return nbytes

    def dies(self, key: int, nbytes: int) -> None:
        """Take a storage off its category."""
        super().dies(key, nbytes)
        if key in self.of:
            self.by[self.of.pop(key)] -= nbytes

    def reached(self) -> None:
        """Note what the peak is made of."""
        self.at_peak = self.by.copy()


def measure(subject: Subject) -> StepMemory | None:
    """The peak of a training step, or of the part that is timed, after the timed ones; None in inference.

    Its categories are those of a further step that is followed. What is compiled cannot be: its peak alone is known.
    """
    step, case = subject.lowered.training, subject.case
    if step is None:
        return None
    step.zero_grad()
    peak = subject.device.allocator_peak(lambda: run(step, case.step))
    if peak is None:
        return None
    if case.lowering.split(":")[0] != "eager":
        weights, state = _standing(step)
        return StepMemory(weights_bytes=weights, optimizer_bytes=state, peak_bytes=weights + state + peak)
    step.zero_grad()
    return followed(step, case.step, Ledger(_workspaces(step), fake=False), peak)


def predict(step: Step, part: str) -> StepMemory:
    """The same of a step on fake tensors, to be called in their mode: nothing is computed."""
    step.forward()  # it makes its labels
    for group in step.optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    step.optimizer.step()  # it makes its state
    step.zero_grad()
    step.loss = None
    with Fused():
        return followed(step, part, Ledger(_workspaces(step), fake=True), None)


def _workspaces(step: Step) -> Mapping[str, Callable[..., int]]:
    return WORKSPACES if step.device.type == "cpu" else {}


def run(step: Step, part: str) -> None:
    """A whole step, or what it takes to get to the end of a part, "forward" or "backward"."""
    if part == "train":
        step.train()
        return
    step.zero_grad()
    step.forward()
    if part == "backward":
        step.backward()


def _standing(step: Step) -> tuple[int, int]:
    """Bytes of weights with buffers, and of the optimizer's state."""
    kept = [each for state in step.optimizer.state.values() for each in state.values() if isinstance(each, Tensor)]
    return sum(map(nbytes, [*step.module.parameters(), *step.module.buffers()])), sum(map(nbytes, kept))


def followed(step: Step, part: str, ledger: Ledger, measured: int | None) -> StepMemory:
    """Follow a step. measured: its peak, where that is known from elsewhere."""
    by_module: Counter[str] = Counter()
    with ExitStack() as stack:
        entered = stack.enter_context(entered_modules(step.module))
        stack.enter_context(_gradients(step.module, ledger))

        def pack(tensor: Tensor) -> Tensor:
            by_module[entered[-1]] += ledger.mark(tensor, ACTIVATIONS)
            return tensor

        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor))
        stack.enter_context(ledger)
        step.train()
    weights = sum(map(nbytes, [*step.module.parameters(), *step.module.buffers()]))
    state = sum(
        nbytes(each) for kept in step.optimizer.state.values() for each in kept.values() if isinstance(each, Tensor)
    )
    peak = ledger.peak if measured is None else measured
    return StepMemory(
        weights_bytes=weights,
        gradients_bytes=ledger.at_peak[GRADIENTS],
        optimizer_bytes=state,
        activations_bytes=ledger.at_peak[ACTIVATIONS],
        temporaries_bytes=peak - ledger.at_peak[GRADIENTS] - ledger.at_peak[ACTIVATIONS],
        peak_bytes=weights + state + peak,
        activations_by_module=dict(by_module),
    )


@contextmanager
def _gradients(module: nn.Module, ledger: Ledger) -> Iterator[None]:
    """Mark each gradient when it is there."""

    def mark(parameter: Tensor) -> None:
        if parameter.grad is not None:
            ledger.mark(parameter.grad, GRADIENTS)

    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    handles = [parameter.register_post_accumulate_grad_hook(mark) for parameter in trained]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class Fused(TorchFunctionMode):
    """Attention on fake tensors by the operator that the installed torch would choose for real ones."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            fused = memory_plan.fused(*args, **(kwargs or {}))
            if fused is not None:
                return fused
        return func(*args, **(kwargs or {}))


def faked(module: nn.Module, device: str) -> nn.Module:
    """A module with its tensors faked on a device, in place: to be called in a FakeTensorMode. Ties stay."""
    placed: dict[int, Tensor] = {}
    for part in module.modules():
        own: tuple[Any, ...] = (part._parameters, part._buffers)
        for tensors in own:
            for name, tensor in tensors.items():
                if tensor is not None:
                    made = memory_plan.fake(tensor, device)
                    if isinstance(tensor, nn.Parameter):
                        made = nn.Parameter(made.detach(), tensor.requires_grad)
                    tensors[name] = placed.setdefault(id(tensor), made)
    return module
