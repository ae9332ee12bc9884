"""A forward's costs by module: parameters, MACs, bytes of outputs, milliseconds, each with all that lies within."""

import contextlib
import itertools
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from mixprof.metrics.flops import Counts, tensors_of
from mixprof.metrics.operators import Operator, role_of


@dataclass(frozen=True)
class Branch:
    """One module with all that lies within."""

    path: str  # "" for the whole
    type: str  # its class
    role: str  # by our own models' modules; "unknown" of others
    params: int  # tied ones once
    macs: int
    activation_bytes: int  # of what its modules return, each storage once: what a training forward keeps of them
    ms: float | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@contextlib.contextmanager
def outputs(module: nn.Module) -> Iterator[dict[str, int]]:
    """Bytes that each module returns in the forwards inside, by its path; what it was given or hands on is not its."""
    paths = {id(part): path for path, part in module.named_modules()}
    kept: dict[str, int] = dict.fromkeys(paths.values(), 0)
    alive: dict[int, weakref.ref] = {}  # by storage, so that each is counted once

    def note(part: nn.Module, given: Any, made: Any) -> None:
        if id(part) not in paths:
            return
        known = {tensor.untyped_storage()._cdata for tensor in _dense(given)}
        for storage in (tensor.untyped_storage() for tensor in _dense(made)):
            key = storage._cdata
            if key in known or key in alive:
                continue
            alive[key] = weakref.ref(storage, lambda _, key=key: alive.pop(key, None))  # type: ignore[misc]
            kept[paths[id(part)]] += storage.nbytes()

    hook = register_module_forward_hook(note)
    try:
        yield kept
    finally:
        hook.remove()


def _dense(tree: Any) -> list[Tensor]:
    return [tensor for tensor in tensors_of(tree) if not tensor.is_sparse]


def tree(module: nn.Module, counts: Counts, kept: Mapping[str, int], declared: bool) -> list[Branch]:
    """The whole and each module within, in the order of their paths. declared: the module is one of ours."""
    macs: dict[str, int] = {}
    for operator in counts.operators:
        macs[operator.module] = macs.get(operator.module, 0) + operator.macs
    parts = dict(module.named_modules())
    branches = []
    for path, part in parts.items():
        role, params = _role(parts, path) if declared else "unknown", sum(map(Tensor.numel, part.parameters()))
        within = (int(_within(path, values)) for values in (macs, kept))
        branches.append(Branch(path, type(part).__name__, role, params, *within))
    return branches


def timed(branches: Iterable[Branch], forwards: Iterable[Iterable[Operator]]) -> list[Branch]:
    """The branches with the milliseconds of their operators, the mean of these forwards."""
    spent: dict[str, float] = {}
    runs = list(forwards)
    for operator in itertools.chain(*runs):
        spent[operator.path] = spent.get(operator.path, 0.0) + (operator.ms or 0.0) / len(runs)
    return [replace(branch, ms=_within(branch.path, spent)) for branch in branches]


def _within(path: str, values: Mapping[str, float]) -> float:
    """The sum over a module and those within."""
    return sum(value for name, value in values.items() if not path or name == path or name.startswith(f"{path}."))


def _role(parts: Mapping[str, nn.Module], path: str) -> str:
    """What a module of ours is for, by itself and those around it."""
    names = path.split(".") if path else []
    around = ["", *(".".join(names[: count + 1]) for count in range(len(names)))]
    stack = [(path, type(parts[path]).__name__, type(parts[path]).__module__) for path in around]
    return role_of(stack, "", "matrix")
