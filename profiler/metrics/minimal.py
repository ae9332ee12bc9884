"""The least bytes that a forward has to move, and which unit its multiply-accumulates run on. Counted on `meta`.

Operands and results of every operator that multiplies and accumulates, each once. What only moves or rearranges
costs nothing: an operand counts with the bytes of what it was made of, so an unfolded map counts as the map. Attention
is one operator: what is written between its two products does not count, however it is spelled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from profiler.metrics.flops import FORMULAS, decompose
from profiler.metrics.operators import MOVES, kind_of, macs_of, tensor_bytes, tensors_of

SOFTMAXES = {"aten._softmax", "aten._safe_softmax"}


@dataclass(frozen=True)
class Minimum:
    """Of one forward, batch included."""

    min_bytes: int
    matrix_macs: int
    vector_macs: int


def count(forward: Callable[..., object], *inputs: object) -> Minimum:
    """Run `forward(*inputs)` once and count it: the published formulation, whose products are matrix products."""
    with _Minimal() as mode:
        forward(*inputs)
    return Minimum(sum(mode.bytes), mode.macs["matrix"], mode.macs["vector"])


@dataclass(frozen=True)
class Origin:
    """What a storage was made of."""

    nbytes: int  # before it was rearranged
    product: int | None = None  # it came from, by way of pointwise operators alone
    softmax: bool = False  # among these
    added: int = 0  # bytes of what these added: a bias, a mask


class _Minimal(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.bytes: list[int] = []  # of each product
        self.written: list[int] = []  # of these, the result
        self.macs = {"matrix": 0, "vector": 0, "move": 0}
        self._origins: dict[int, Origin] = {}  # by storage; a new one's is always set anew

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = str(func.overloadpacket).removesuffix("_")
        if name not in FORMULAS:
            with self:
                parts = decompose(func, args, kwargs)
            if parts is not NotImplemented:
                return parts
        inputs = tensors_of((args, kwargs))
        origins = [self._origin(tensor) for tensor in inputs]
        result = func(*args, **kwargs)
        given = {tensor.untyped_storage()._cdata for tensor in inputs}
        outputs = [tensor for tensor in tensors_of(result) if tensor.untyped_storage()._cdata not in given]
        macs = macs_of(name, args, result) if name in FORMULAS else 0  # as flops.count
        if macs:
            self.macs[kind_of(name, args, macs)] += macs
            self._multiply(origins, sum(map(tensor_bytes, tensors_of(result))))
        for tensor in outputs:
            self._origins[tensor.untyped_storage()._cdata] = self._made_of(name, bool(macs), tensor, origins)
        return result

    def _origin(self, tensor: Tensor) -> Origin:
        own = tensor_bytes(tensor)
        known = self._origins.get(tensor.untyped_storage()._cdata)
        if known is None:
            return Origin(own)
        return Origin(min(own, known.nbytes), known.product, known.softmax, known.added)

    def _multiply(self, operands: list[Origin], written: int) -> None:
        total = written
        for each in operands:
            if each.softmax and each.product is not None:  # the second product of an attention
                self.bytes[each.product] += each.added - self.written[each.product]
                self.written[each.product] = 0
            else:
                total += each.nbytes
        self.bytes.append(total)
        self.written.append(written)

    def _made_of(self, name: str, is_product: bool, made: Tensor, origins: list[Origin]) -> Origin:
        own = tensor_bytes(made)
        if is_product:
            return Origin(own, product=len(self.bytes) - 1)
        if name in MOVES:
            first = origins[0] if len(origins) == 1 else Origin(own)
            nbytes = min(own, sum(each.nbytes for each in origins)) if origins else 0
            return Origin(nbytes, first.product, first.softmax, first.added)
        from_product = [each for each in origins if each.product is not None]
        if len(from_product) != 1:
            return Origin(own)
        (one,) = from_product
        added = one.added + sum(each.nbytes for each in origins if each is not one)
        return Origin(own, one.product, one.softmax or name in SOFTMAXES, added)
