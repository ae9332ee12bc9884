"""Peak memory of one eager forward, predicted: nothing is computed and next to nothing allocated.

The forward runs on fake tensors, which have a device, shape and strides but no values; `meta` alone would not do, since
kernels lay out their results by device and modules may choose by it. Each storage that an operator creates lives until
its last tensor is gone. Kernels also take workspaces that no tensor shows: `WORKSPACES` holds the CPU's. On CUDA, where
there is one, attention is that of the backend that torch chooses there, and the prediction is of tensors alone: what
cuDNN takes is its own choice, made on the device.
"""

import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only

from mixprof.metrics.flops import decompose
from mixprof.metrics.workspaces import WORKSPACES, stand_in


def predict_peak(forward: Callable[..., object], *inputs: object, device: str = "cpu") -> int:
    """Peak bytes above what is allocated before `forward(*inputs)` on `device`, which need not be there.

    forward: a module, or a function of its inputs; they may lie on `meta`. Weights and inputs are not included, the
    output is. Of a forward in inference mode, where no activation is kept for a backward. Workspaces are those for
    the number of threads set now.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        function, faked = fake_module(forward, device), fake(inputs, device)
        workspaces = WORKSPACES if torch.device(device).type == "cpu" else {}
        with torch.inference_mode(), _Liveness(workspaces) as mode:
            function(*faked)
    return mode.peak


def fake(tree: Any, device: str) -> Any:
    """The tensors of a tree as fake ones on the device: to be called in a FakeTensorMode."""

    def emptied(tensor: Tensor) -> Tensor:
        empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
        return empty.requires_grad_(tensor.requires_grad)  # matmul chooses its kernel by it, in inference mode too

    return tree_map_only(Tensor, emptied, tree)


def fake_module(forward: Callable[..., object], device: str) -> Callable[..., object]:
    """A module with its weights as fake ones on the device: to be called in a FakeTensorMode."""
    if not isinstance(forward, nn.Module):
        return forward
    weights = fake({**dict(forward.named_parameters()), **dict(forward.named_buffers())}, device)
    return lambda *inputs: torch.func.functional_call(forward, weights, inputs)


class _Liveness(TorchDispatchMode):
    """Bytes of the storages created inside it that are still alive, and their highest sum."""

    def __init__(self, workspaces: Mapping[str, Callable[..., int]]) -> None:
        super().__init__()
        self._workspaces = workspaces
        self.live = 0
        self.peak = 0
        self._alive: dict[int, weakref.ref] = {}  # by storage, so that each is counted once

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with self:
            parts = _parts(func, args, kwargs)
        if parts is not NotImplemented:
            return parts
        result = as_viewed(*args) if func is torch.ops.aten.view.default else func(*args, **kwargs)
        given = {tensor.untyped_storage()._cdata for tensor in _tensors((args, kwargs))}
        for storage in (tensor.untyped_storage() for tensor in _tensors(result)):
            if storage._cdata not in given:  # neither a view nor in place
                self._born(storage)
        taken, formula = 0, self._workspaces.get(str(func.overloadpacket))
        if formula is not None:  # beside inputs and outputs, while it runs
            with _disable_current_modes():
                taken = formula(result, *args, **kwargs)
        self.peak = max(self.peak, self.live + taken)
        return result

    def _born(self, storage: torch.UntypedStorage) -> None:
        key, nbytes = storage._cdata, storage.nbytes()
        if key in self._alive:
            return

        def died(_: object) -> None:
            self.live -= nbytes
            del self._alive[key]

        self._alive[key] = weakref.ref(storage, died)
        self.live += nbytes


def as_viewed(tensor: Tensor, shape: list[int]) -> Tensor:
    """tensor.view(shape) with the strides that the kernel gives it.

    A fake tensor keeps its own for its own shape; the kernel anew: where an axis has length 1 they differ, and with
    them the memory format that a convolution sees.
    """
    with _disable_current_modes():
        strides = torch.empty_strided(tensor.shape, tensor.stride(), device="meta").view(shape).stride()
    return tensor.view(shape).as_strided(tensor.view(shape).shape, strides)


def _parts(func: Any, args: Any, kwargs: Any) -> Any:
    """What an operator that is only a composition of others comes to; NotImplemented for any other."""
    if func is torch.ops.aten.scaled_dot_product_attention.default:
        fused = FUSED.get((args[0].device.type, backend(*args, **kwargs)))
        if fused is not None:
            return fused(*args, **kwargs)
    return decompose(func, args, kwargs)


def backend(*args: Any, **kwargs: Any) -> int:
    """The backend that this torch chooses for such an attention on its device, asked of tensors without values."""
    with _disable_current_modes():
        alike: list[Any] = [_alike(argument) if isinstance(argument, Tensor) else argument for argument in args]
        return int(torch._fused_sdp_choice(*alike, **kwargs))


def _alike(tensor: Tensor) -> Tensor:
    """A tensor that a kernel is chosen by: on a CPU over next to no memory, on a GPU of the same strides."""
    if tensor.device.type == "cpu":
        return stand_in(tensor)
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device)


def _on_cpu(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *flags: object,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """The fused kernel's output beside its log-sum-exp; a boolean mask is made a float one first.

    flags: dropout and whether it is causal.
    """
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.where(mask, torch.zeros((), dtype=query.dtype, device=mask.device), float("-inf"))
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return fused(query, key, value, *flags, attn_mask=mask, scale=scale)[0]


def _on_cuda(
    kernel: str, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, *, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """The output of a fused kernel beside what else it returns, where nothing is kept for a backward."""
    more = {
        "flash": (dropout_p, is_causal, False),
        "efficient": (attn_mask, False, dropout_p, is_causal),
        "cudnn": (attn_mask, False, dropout_p, is_causal, False),
    }[kernel]
    fused: Callable[..., tuple[Tensor, ...]] = getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}_attention")
    return fused(query, key, value, *more, scale=scale)[0]


# (type of device, backend) -> the operator with its outputs; any other backend is products around a softmax. Those of
# CUDA have never run on a GPU.
FUSED: dict[tuple[str, int], Callable[..., Tensor]] = {
    ("cpu", SDPBackend.FLASH_ATTENTION.value): _on_cpu,
    ("cuda", SDPBackend.FLASH_ATTENTION.value): partial(_on_cuda, "flash"),
    ("cuda", SDPBackend.EFFICIENT_ATTENTION.value): partial(_on_cuda, "efficient"),
    ("cuda", SDPBackend.CUDNN_ATTENTION.value): partial(_on_cuda, "cudnn"),
}


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
