"""Minimal bytes of every operator that multiplies and accumulates: what it would move if all else were fused.

Its operands and its result, each tensor once. What lies between such operators is taken as fusable:

- an operand that others were only moved or computed into element by element (padded, unfolded, gathered, permuted,
  scaled, cast) costs no more than what it was made of, and nothing where it was made of numbers (a mask);
- weights and what is broadcast to an operator's result afterwards (a bias, a scale) are among its operands;
- a product, a softmax of it and a product of that (attention) are one operator: the scores never leave the chip;
- so are the four products of its backward, which can make the scores again from what the forward read;
- what is only folded back into a map afterwards (the gradient of unfolded neighbours) costs no more than that map;
- indices cost nothing: a kernel can compute them.
"""

import itertools
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

ATTENTION = "attention"  # the name of a product, a softmax and a product that count as one operator
SOFTMAXES = frozenset({"aten._softmax", "aten._safe_softmax", "aten._masked_softmax"})
SOFTMAX_BACKWARD = "aten._softmax_backward_data"
FOLDS = frozenset({"aten.col2im", "aten.index_put", "aten._unsafe_index_put"})  # many values into few, added up
BACKWARD = "backward "  # before the names of a backward's operators
INDEXED = frozenset(
    f"aten.{name}"
    for name in ("index", "_unsafe_index", "index_select", "gather", "embedding", "take", "masked_fill", "where")
)
Part = tuple[int, int, int]  # a tensor: number of its storage, offset in it in values, bytes
Parts = Mapping[Part, int]  # what is read, and the bytes of each


@dataclass(frozen=True)
class Operator:
    """An operator of a forward that multiplies and accumulates."""

    name: str  # "aten.addmm", or "attention"
    module: str  # path of the module whose forward called it, "" outside of any
    macs: int
    parts: tuple[int, ...]  # bytes of each tensor that it reads or writes, the result last

    @property
    def min_bytes(self) -> int:
        return sum(self.parts)


@dataclass
class _Draft:
    """An operator, while later ones may still turn out to be part of it."""

    name: str
    module: str
    macs: int
    reads: dict[Part, int]
    writes: dict[Part, int]
    twin: int | None = None  # of an attention: the operator that is its backward
    joined: bool = False  # it has become part of another


@dataclass
class _Origin:
    """Where the values of a storage come from."""

    number: int
    parts: Parts  # the cheapest to read that gives them
    weight: bool  # whether they are the same at every forward
    product: int | None = None  # the operator whose result they are, possibly scaled, biased, softmaxed, moved
    softmaxed: bool = False


class Traffic:
    """Follows tensors from operator to operator. Told of each in turn; `operators` says what was found."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        self._drafts: list[_Draft] = []
        self._origins: dict[int, _Origin] = {}  # by storage, as long as it lives
        self._dead: dict[int, weakref.ref] = {}
        self._numbers = itertools.count()
        for tensor in inputs:
            self._anew(tensor)

    @property
    def operators(self) -> tuple[Operator, ...]:
        drafts = [draft for draft in self._drafts if not draft.joined]
        parts = [(*draft.reads.values(), *draft.writes.values()) for draft in drafts]
        return tuple(Operator(d.name, d.module, d.macs, sizes) for d, sizes in zip(drafts, parts, strict=True))

    def multiplied(
        self, name: str, module: str, macs: int, given: Sequence[Tensor], made: Sequence[Tensor], *, backward: bool
    ) -> None:
        """An operator that multiplies and accumulates turned `given` into `made`."""
        if "attention" in name and "backward" not in name:
            name, made = ATTENTION, made[:1]  # what follows is kept for a backward
        origins = (self._origin(tensor) for tensor in given)
        number = scores = next((origin.product for origin in origins if origin.softmaxed), None)
        if number is None:
            number = self._begun(BACKWARD + name if backward else name, module)
        elif backward:
            number = self._twin(number)
        elif self._drafts[number].name != ATTENTION:
            self._drafts[number].name, self._drafts[number].writes = ATTENTION, {}
        draft = self._drafts[number]
        draft.macs += macs
        for tensor in given:
            origin = self._origin(tensor)
            if not (origin.softmaxed and origin.product == scores):
                draft.reads.update(self._reading(tensor))
        for tensor in made:
            origin = self._anew(tensor)
            origin.product = number
            draft.writes.update(origin.parts)

    def _begun(self, name: str, module: str) -> int:
        self._drafts.append(_Draft(name, module, 0, {}, {}))
        return len(self._drafts) - 1

    def _twin(self, number: int) -> int:
        """The backward of an attention, which reads what its forward read; of one that is a backward, itself."""
        draft = self._drafts[number]
        if draft.name.startswith(BACKWARD):
            return number
        if draft.twin is None:
            draft.twin = self._begun(BACKWARD + ATTENTION, draft.module)
            self._drafts[draft.twin].reads.update(draft.reads)
        return draft.twin

    def softmax_backward(self, gradient: Tensor, output: Tensor, made: Tensor) -> None:
        """The gradient of scores: it joins the product that made it to the attention's backward."""
        product, of_gradient = self._origin(output).product, self._origin(gradient).product
        if product is None or of_gradient is None or not self._origin(output).softmaxed:
            return self.opaque([gradient, output], [made], mutates=False)
        number, other = self._twin(product), self._drafts[of_gradient]
        self._drafts[number].reads.update(other.reads)
        self._drafts[number].macs += other.macs
        other.joined = True
        derived = self._anew(made)
        derived.product, derived.softmaxed = number, True
        return None

    def fused(
        self, name: str, given: Sequence[Tensor], made: Sequence[Tensor], *, mutates: bool, shape_only: bool
    ) -> None:
        """An operator that moves or computes element by element, or a softmax, turned `given` into `made`."""
        if name in INDEXED:
            given = [tensor for tensor in given if tensor.is_floating_point() or tensor.is_complex()]
        if name in FOLDS:
            return self._fold(max(given, key=Tensor.numel), made[0])
        sources = [] if shape_only else given
        storages = {_key(tensor) for tensor in given}
        for tensor in made:
            if mutates or _key(tensor) not in storages:  # else a view
                self._derive(name, tensor, sources)
        return None

    def _fold(self, source: Tensor, made: Tensor) -> None:
        """Let the operators that made the source write what is left of it, where that is less."""
        parts, folded = self._origin(source).parts, self._anew(made)
        writers = [draft for draft in self._drafts if parts.keys() & draft.writes.keys()]
        if not writers or _held(made) >= sum(parts.values()):
            return
        for draft in writers:
            draft.writes = {part: size for part, size in draft.writes.items() if part not in parts}
        writers[-1].writes.update(folded.parts)

    def _derive(self, name: str, tensor: Tensor, sources: Sequence[Tensor]) -> None:
        origins = [self._origin(source) for source in sources]
        readings = [self._reading(source) for source in sources]
        parts = {part: size for reading in readings for part, size in reading.items()}
        derived = self._anew(tensor)
        derived.weight = all(origin.weight for origin in origins)
        if name not in SOFTMAXES and sum(parts.values()) <= _held(tensor):
            derived.parts = parts
        # Scores keep their number of values on the way to their softmax; a bias that a product made is broadcast.
        whole = [n for n, source in enumerate(sources) if source.numel() == tensor.numel()]
        products = {product for n in whole if (product := origins[n].product) is not None}
        if len(products) != 1:
            return
        derived.product = number = products.pop()
        derived.softmaxed = name in SOFTMAXES or any(origins[n].softmaxed for n in whole)
        for n, reading in enumerate(readings):
            if origins[n].weight or n not in whole:
                self._drafts[number].reads.update(reading)

    def opaque(self, given: Sequence[Tensor], made: Sequence[Tensor], *, mutates: bool) -> None:
        """Any other operator: what it makes has no origin but itself."""
        storages = {_key(tensor) for tensor in given}
        for tensor in made:
            if mutates or _key(tensor) not in storages:
                self._anew(tensor)

    def _reading(self, tensor: Tensor) -> Parts:
        """The cheapest tensors to read that give this one's values, and their bytes."""
        origin, own = self._origin(tensor), distinct_bytes(tensor)
        if own < sum(origin.parts.values()):
            return {(origin.number, int(tensor.storage_offset()), own): own}
        return origin.parts

    def _origin(self, tensor: Tensor) -> _Origin:
        return self._origins.get(_key(tensor)) or self._anew(tensor, weight=True)

    def _anew(self, tensor: Tensor, *, weight: bool = False) -> _Origin:
        """Let a tensor's storage be its own origin, until it is gone. One that nothing made is a weight."""
        key, number = _key(tensor), next(self._numbers)
        origin = self._origins[key] = _Origin(number, {(number, 0, _held(tensor)): _held(tensor)}, weight)
        if key not in self._dead:
            self._dead[key] = weakref.ref(_owner(tensor), lambda _: self._forget(key))
        return origin

    def _forget(self, key: int) -> None:
        self._origins.pop(key, None)
        self._dead.pop(key, None)


def distinct_bytes(tensor: Tensor) -> int:
    """Bytes of a tensor's values, those that a broadcast repeats once."""
    if tensor.layout != torch.strided:
        return tensor.numel() * tensor.element_size()
    sizes = (size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride or not size)
    return prod(sizes) * tensor.element_size()


def _owner(tensor: Tensor) -> torch.UntypedStorage | Tensor:
    """What holds a tensor's values: its storage, or itself where it has no single one (a sparse tensor)."""
    try:
        return tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):
        return tensor


def _key(tensor: Tensor) -> int:
    owner = _owner(tensor)
    return id(owner) if isinstance(owner, Tensor) else owner._cdata


def _held(tensor: Tensor) -> int:
    """Bytes of all that a tensor's owner holds."""
    owner = _owner(tensor)
    return distinct_bytes(owner) if isinstance(owner, Tensor) else owner.nbytes()
