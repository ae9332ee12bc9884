"""Every operator that one forward runs: its module, role and stage, what it multiplies, what it reads and writes.

Counts are of the form that really runs (a specialised module), bytes of the tensors as they lie in memory: an axis that
a tensor repeats is read once, a view costs nothing, a fused attention is one operator. Nothing is known of caches.
"""

import contextlib
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, TypedDict

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from mixprof.lowerings.roles import ROLE_OF_CLASS
from mixprof.machine import devices
from mixprof.metrics import memory_plan
from mixprof.metrics.flops import Counts, decompose, tensors_of
from mixprof.metrics.operator_costs import FORMULAS, macs_of, runs_on
from mixprof.metrics.traffic import distinct_bytes

GENERATORS = {"DynamicConv", "InhomogeneousConv"}  # whose products make kernels, which then mix positions
HEADS = {"head", "fc", "classifier"}
ATTENTION = "aten.scaled_dot_product_attention"
FREE = {f"aten.{name}" for name in ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")}
OVERWRITES = {f"aten.{name}" for name in ("copy", "fill", "zero")}  # their first argument is not read
MOVES = {
    f"aten.{name}"
    for name in (
        *("_to_copy", "cat", "clone", "constant_pad_nd", "copy", "fill", "flip", "gather", "im2col", "index"),
        *("index_select", "new_zeros", "ones", "repeat", "roll", "stack", "zero", "zeros", "zeros_like"),
    )
}
STAGE = re.compile(r"(?:^|\.)(?:layers|stages)\.(\d+)(?:\.|$)")
Place = tuple[str, str, str]  # of a module: its path, its class, and the module of Python that defines the class


@dataclass(frozen=True)
class Operator:
    """One kernel of a forward, batch included."""

    name: str  # "aten.convolution"
    path: str  # of the module that runs it: "layers.0.blocks.1.attn.qkv"
    role: str
    stage: int | None  # from 1
    kind: str  # "matrix" or "vector", by the unit that multiplies; "move" where nothing is multiplied and added
    macs: int
    read_bytes: int
    written_bytes: int
    weight_bytes: int = 0  # of what is read, that which no operator made and is not the input
    ms: float | None = None

    def to_json(self) -> dict[str, object]:
        return {**asdict(self), "flops": Counts(self.macs, {}, ()).flops}


class Share(TypedDict):
    """The part of a forward that one role takes in one stage."""

    stage: int | None
    role: str
    ms: float
    macs: int
    bytes: int
    kernels: int


class Watch:
    """Knows which modules of a network run right now. declared: the network is one of ours, which says their roles."""

    def __init__(self, module: nn.Module, *, declared: bool = True) -> None:
        self.module, self.declared = module, declared
        self.stack: list[Place] = []
        for path, part in module.named_modules():
            place = (path, type(part).__name__, type(part).__module__)
            part.register_forward_pre_hook(lambda *_, place=place: self.stack.append(place))
            part.register_forward_hook(self._leave)

    def _leave(self, *_: object) -> None:
        self.stack.pop()


def trace(module: nn.Module, *inputs: Tensor, device: str = "cpu") -> list[Operator]:
    """The operators of `module(*inputs)`, which lie on `meta`, as that device would run them; it need not be there."""
    watch = Watch(module)
    with contextlib.ExitStack() as contexts:
        function: Callable[..., object] = module
        if device == "cpu":  # kernels and modules choose by it
            contexts.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
            function, inputs = memory_plan.fake_module(module, "cpu"), memory_plan.fake(inputs, "cpu")
        contexts.enter_context(torch.inference_mode())
        mode = contexts.enter_context(_Trace(watch, abstract=True))
        mode.made |= {_storage(tensor) for tensor in inputs}
        function(*inputs)
    return mode.operators


def timed(forward: Callable[[], object], watch: Watch, device: str, forwards: int) -> list[list[Operator]]:
    """The operators of each of so many forwards with their times, after one that is not kept.

    Each is called by itself and waited for: that slows a forward down. On CUDA never run yet.
    """

    on = devices.of(device)

    def clock() -> float:
        on.synchronize()
        return on.clock()

    runs = []
    for _ in range(forwards + 1):
        with _Trace(watch, clock=clock) as mode:
            forward()
        runs.append(mode.operators)
    return runs[1:]


def dispatched(forward: Callable[[], object]) -> list[Operator]:
    """The operators of one forward, of whatever it is made: their roles are unknown."""
    with _Trace(Watch(nn.Module(), declared=False)) as mode:
        forward()
    return mode.operators


def breakdown(runs: Iterable[list[Operator]]) -> list[Share]:
    """Of each stage and role: MACs, bytes, kernels, and the median over the forwards of its milliseconds."""
    runs = list(runs)
    groups = [_groups(run) for run in runs]
    rows: list[Share] = []
    for (stage, role), first in groups[0].items():
        ms = median(sum(operator.ms or 0.0 for operator in group.get((stage, role), ())) for group in groups)
        moved = sum(operator.read_bytes + operator.written_bytes for operator in first)
        macs = sum(operator.macs for operator in first)
        rows.append(Share(stage=stage, role=role, ms=ms, macs=macs, bytes=moved, kernels=len(first)))
    return rows


def _groups(run: list[Operator]) -> dict[tuple[int | None, str], list[Operator]]:
    groups: dict[tuple[int | None, str], list[Operator]] = {}
    for operator in run:
        groups.setdefault((operator.stage, operator.role), []).append(operator)
    return groups


class _Trace(TorchDispatchMode):
    """Notes the operators dispatched inside it. abstract: tensors have no values."""

    def __init__(self, watch: Watch, *, abstract: bool = False, clock: Callable[[], float] = lambda: 0.0) -> None:
        super().__init__()
        self.watch, self.abstract, self.clock = watch, abstract, clock
        self.operators: list[Operator] = []
        self.made: set[int] = set()  # storages of the input and of results; any other is a weight's

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = str(func.overloadpacket).removesuffix("_")
        if name not in FORMULAS:
            with self:
                parts = decompose(func, args, kwargs)
            if parts is not NotImplemented:
                return parts
        start = self.clock()
        result = _abstract(func, name, args, kwargs) if self.abstract else func(*args, **kwargs)
        self._note(func, name, args, kwargs, result, 1000 * (self.clock() - start))
        return result

    def _note(self, func: Any, name: str, args: Any, kwargs: Any, result: Any, ms: float) -> None:
        inputs = tensors_of((args, {key: value for key, value in kwargs.items() if key != "out"}))
        outputs = tensors_of(result)
        if not func._schema.is_mutable:
            given = {_storage(tensor) for tensor in inputs}
            outputs = [tensor for tensor in outputs if _storage(tensor) not in given]
        weights = [tensor for tensor in inputs if _storage(tensor) not in self.made]
        self.made |= {_storage(tensor) for tensor in outputs}
        if not outputs or name in FREE:
            return
        # Those that shift and accumulate by value among them.
        macs = int(result.numel()) if name == "aten.addcmul" else macs_of(name, args, result, kwargs) or 0
        kind, read = kind_of(name, args, macs), inputs[1:] if name in OVERWRITES else inputs
        path = self.watch.stack[-1][0] if self.watch.stack else ""
        role = role_of(self.watch.stack, name, kind) if self.watch.declared else "unknown"
        reads, writes, of_weights = (sum(map(distinct_bytes, tensors)) for tensors in (read, outputs, weights))
        self.operators.append(Operator(name, path, role, stage_of(path), kind, macs, reads, writes, of_weights, ms))


def _abstract(func: Any, name: str, args: Any, kwargs: Any) -> Any:
    """What an operator returns for tensors without values, laid out in memory as its kernel does it."""
    if name == ATTENTION:  # (B, heads, L, E_v), heads beside one another in memory, as fused kernels write it
        *batch, heads, length, _ = args[0].shape
        return args[0].new_empty(*batch, length, heads, args[2].shape[-1]).transpose(-2, -3)
    if func is torch.ops.aten.view.default and args[0].device.type != "meta":
        return memory_plan.as_viewed(*args)
    return func(*args, **kwargs)


def kind_of(name: str, args: Any, macs: int) -> str:
    """ "move" without multiply-accumulates, else the unit that does them; those by value are a vector unit's."""
    if not macs:
        return "move"
    return "vector" if name == "aten.addcmul" else runs_on(name, args)


def role_of(stack: list[Place], name: str, kind: str) -> str:
    """From the modules that run, innermost first; a mixer's copies are "reshape": window partition and shift."""
    for path, class_name, python in reversed(stack):
        if class_name in ROLE_OF_CLASS:
            return ROLE_OF_CLASS[class_name]
        if class_name in GENERATORS and (kind == "matrix" or name in ("aten.mean", "aten.relu")):
            return "generator"
        if ".mixers." in python:
            return "reshape" if name in MOVES else "mixer"
        if path.split(".")[0] in HEADS:
            return "head"
    return "other"


def stage_of(path: str) -> int | None:
    """ "layers.0.blocks.1" -> 1; None outside of stages."""
    match = STAGE.search(path)
    return int(match[1]) + 1 if match else None


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
