"""Multiply-accumulates of one forward, or of one with its backward, counted on the aten operators that it dispatches.

An operator that `operator_costs` does not know is named in `Counts.uncounted_ops`, and the counts are then "at least".
What leaves the dispatcher (a kernel launched by an extension's own binding, NumPy) cannot be seen; a product spelled
as a pointwise multiplication and a sum costs nothing here, so count the matrix-product formulation.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mixprof.metrics.operator_costs import FORMULAS, is_fusable, is_light, macs_of, runs_on
from mixprof.metrics.traffic import BACKWARD, SOFTMAX_BACKWARD, SOFTMAXES, Operator, Traffic

PATH = "mixprof.path"  # in an autograd node's metadata: the module whose forward made it


@dataclass(frozen=True)
class Counts:
    """Cost of one forward, batch included. Counts are exact if `uncounted_ops` is empty, else a lower bound."""

    macs: int
    macs_by_op: dict[str, int]  # "aten.addmm", "backward aten.mm" -> MACs, largest first; none that cost nothing
    uncounted_ops: tuple[str, ...]  # neither known to be light nor in FORMULAS, sorted
    operators: tuple[Operator, ...] = field(default=(), compare=False)  # those that multiply and accumulate, in order
    sizes: frozenset[int] = field(default=frozenset(), compare=False)  # lengths of axes that occurred
    vector_macs: int = field(default=0, compare=False)  # of the MACs, those that a matrix unit cannot do: runs_on()
    backward_macs: int = field(default=0, compare=False)  # of the MACs, those of a backward

    @property
    def min_bytes(self) -> int:
        """Bytes that the operators would move if everything between were fused into them, in the dtypes they ran in."""
        return sum(operator.min_bytes for operator in self.operators)

    @property
    def flops(self) -> int:
        """A multiply-accumulate is 2 FLOPs: said here and nowhere else."""
        return 2 * self.macs


def count(forward: Callable[..., object], *inputs: object, within: nn.Module | None = None) -> Counts:
    """Run `forward(*inputs)` once and count it. Any device (meta costs nothing), any grad or inference mode.

    within: the module whose paths operators are told by, where that is not `forward` itself.
    """
    with entered_modules(within or forward) as entered, _Count(entered, tensors_of(inputs)) as mode:
        forward(*inputs)
    macs_by_op = {op: macs for op, macs in mode.macs.most_common() if macs}
    backward = sum(macs for op, macs in macs_by_op.items() if op.startswith(BACKWARD))
    uncounted, sizes, operators = tuple(sorted(mode.uncounted)), frozenset(mode.sizes), mode.traffic.operators
    return Counts(sum(macs_by_op.values()), macs_by_op, uncounted, operators, sizes, mode.vector_macs, backward)


@contextlib.contextmanager
def entered_modules(forward: Callable[..., object]) -> Iterator[list[str]]:
    """The paths of the modules whose forward has begun and not ended, the outermost ("") first."""
    paths = {id(part): path for path, part in forward.named_modules()} if isinstance(forward, nn.Module) else {}
    entered = [""]

    def enter(module: nn.Module, args: Any) -> None:
        _sign(args, entered[-1])
        entered.append(paths.get(id(module), entered[-1]))

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        _sign(output, entered.pop())

    hooks = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True)]
    try:
        yield entered
    finally:
        for hook in hooks:
            hook.remove()


def _sign(made: Any, path: str) -> None:
    """Note a module's path on the autograd nodes that these tensors came from, as far as they have none yet."""
    nodes: list[Any] = [tensor.grad_fn for tensor in tensors_of(made)]
    while nodes:
        node = nodes.pop()
        if node is not None and PATH not in node.metadata:
            node.metadata[PATH] = path
            nodes += [before for before, _ in node.next_functions]


class _Count(TorchDispatchMode):
    """Adds up the operators dispatched inside it; what an operator does within itself is not seen again."""

    supports_higher_order_operators = True  # flex_attention and the like arrive here and are named as uncounted

    def __init__(self, entered: list[str], inputs: list[Tensor]) -> None:
        super().__init__()
        self.macs: Counter[str] = Counter()
        self.uncounted: set[str] = set()
        self.vector_macs = 0
        self.traffic = Traffic(inputs)
        self.sizes: set[int] = set()
        self._entered = entered

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not isinstance(func, torch._ops.OpOverload):
            self.uncounted.add(str(func))
            return func(*args, **kwargs)
        with self:
            parts = decompose(func, args, kwargs)
        if parts is not NotImplemented:
            return parts
        result = func(*args, **kwargs)
        self._add(func, args, kwargs, result)
        return result

    def _add(self, func: torch._ops.OpOverload, args: Any, kwargs: Any, result: Any) -> None:
        name = str(func.overloadpacket).removesuffix("_")  # in-place operators cost what their functional twins do
        given = tensors_of((args, {key: value for key, value in kwargs.items() if key != "out"}))
        made, mutates = tensors_of(result), func._schema.is_mutable
        macs = macs_of(name, args, result, kwargs)
        self.sizes.update(*(tensor.shape for tensor in (*given, *made)))
        if macs is not None:
            node: Any = torch._C._current_autograd_node()  # None in a forward
            module = self._entered[-1] or ("" if node is None else node.metadata.get(PATH, ""))
            self.macs[name if node is None else BACKWARD + name] += macs
            self.vector_macs += macs if runs_on(name, args) == "vector" else 0
            self.traffic.multiplied(name, module, macs, given, made, backward=node is not None)
        elif name == SOFTMAX_BACKWARD:
            self.traffic.softmax_backward(given[0], given[1], result)
        elif name in SOFTMAXES or is_fusable(func):
            shape_only = name.endswith("_like") or name.startswith("aten.new_")  # no values are read
            self.traffic.fused(name, given, made, mutates=mutates, shape_only=shape_only)
        else:
            self.traffic.opaque(given, made, mutates=mutates)
        if macs is None and (name in FORMULAS or not is_light(func)):
            self.uncounted.add(name)


def tensors_of(tree: Any) -> list[Tensor]:
    """The tensors among arguments or results."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor) and not leaf.is_nested]


def decompose(func: torch._ops.OpOverload, args: Any, kwargs: Any) -> Any:
    """The result of an operator that is only a composition of others, by way of these; else NotImplemented.

    Inference mode dispatches the likes of linear, conv2d and matmul whole; every other mode dispatches their parts.
    """
    if func.namespace == "prim":  # a fake tensor's device: an operator that the dispatcher itself does not know
        return NotImplemented
    return func.decompose(*args, **kwargs)
