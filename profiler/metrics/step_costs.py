"""Costs of a training step: its forward, the backward that autograd dispatches, the bytes of an optimizer's update.

The backward is that of every parameter, and of the inputs that require a gradient: a mixer's does, since it stands
within a network, and an image does not, so that the first layer's input gradient costs nothing, as in training.
The loss is left out: it has no products, and next to no bytes.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from mixprof.data.errors import Unsupported
from mixprof.metrics import flops
from mixprof.metrics.flops import Counts, tensors_of
from mixprof.metrics.traffic import BACKWARD, Operator
from mixprof.models import training

# Values that an update reads and writes for each parameter: itself and its state twice, its gradient once.
UPDATE_VALUES = {"adamw": 7, "sgd": 5}
UPDATE = "optimizer"  # the name of an update among operators
FEW_VALUES = "Expected more than 1 value per channel"


def count(
    step: str, forward: Callable[..., object], inputs: Sequence[Tensor], within: nn.Module, *, update_bytes: int = 0
) -> Counts:
    """Count "inference", "forward", "backward" or "train" of a module in the mode that it is in.

    update_bytes: that an optimizer moves for each parameter; operators of "train" include the updates. Unsupported for
    a module without gradients, and for a batch norm that sees one value of a channel.
    """
    if step == "inference":
        return flops.count(forward, *inputs, within=within)
    with torch.inference_mode(False), torch.enable_grad():
        try:
            alone = flops.count(forward, *inputs, within=within) if step != "train" else None
            if step == "forward" and alone is not None:
                return alone
            both = flops.count(lambda *given: backward(forward(*given)), *inputs, within=within)
        except ValueError as error:
            if FEW_VALUES in str(error):
                raise Unsupported("a batch norm in training sees one value of a channel: use --batches 2") from error
            raise
    return _with_update(both, within, update_bytes) if alone is None else _backward_of(both, alone)


def prepare(module: nn.Module, trained: Collection[str] | None = None) -> nn.Module:
    """A module in training mode. trained: the names of the parameters that take a gradient; None: all.

    Unsupported for one without such parameters.
    """
    try:
        training.requires(module.train(), trained)
    except ValueError as error:
        raise Unsupported(str(error)) from error
    return module


def backward(made: object) -> None:
    """Run the backward of all that requires a gradient in a forward's outputs, from gradients that nothing computes."""
    outputs = [tensor for tensor in tensors_of(made) if tensor.requires_grad]
    if not outputs:
        raise Unsupported(training.NO_LOSS)
    with _disable_current_modes():
        gradients = [torch.empty_like(output, device=output.device) for output in outputs]
    torch.autograd.backward(outputs, gradients)


def _backward_of(both: Counts, alone: Counts) -> Counts:
    by_op = {name: macs for name, macs in both.macs_by_op.items() if name.startswith(BACKWARD)}
    operators = tuple(operator for operator in both.operators if operator.name.startswith(BACKWARD))
    vector = both.vector_macs - alone.vector_macs
    return replace(both, macs=both.backward_macs, macs_by_op=by_op, operators=operators, vector_macs=vector)


def _with_update(both: Counts, within: nn.Module, update_bytes: int) -> Counts:
    updates = [
        Operator(UPDATE, name, 0, (update_bytes * each.numel(),))
        for name, each in within.named_parameters()
        if each.grad is not None  # what no output depends on is not updated
    ]
    return replace(both, operators=(*both.operators, *updates))
