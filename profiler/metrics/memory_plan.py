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
        with torch.inference_mode(), Liveness(workspaces) as mode:
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


class Liveness(TorchDispatchMode):
    """Bytes of the storages created inside it that are still alive, and their highest sum."""

    def __init__(self, workspaces: Mapping[str, Callable[..., int]], *, fake: bool = True) -> None:
        super().__init__()
        self._workspaces, self._fake = workspaces, fake
        self.live = 0
        self.peak = 0
        self.alive: dict[int, weakref.ref] = {}  # by storage, so that each is counted once

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with self:
            parts = _parts(func, args, kwargs)
        if parts is not NotImplemented:
            return parts
        is_view = self._fake and func is torch.ops.aten.view.default
        result = as_viewed(*args) if is_view else func(*args, **kwargs)
        given = {tensor.untyped_storage()._cdata for tensor in _tensors((args, kwargs))}
        for storage in (tensor.untyped_storage() for tensor in _tensors(result)):
            if storage._cdata not in given:  # neither a view nor in place
                self._born(storage)
        taken, formula = 0, self._workspaces.get(str(func.overloadpacket))
        if formula is not None:  # beside inputs and outputs, while it runs
            with _disable_current_modes():
                taken = formula(result, *args, **kwargs)
        if self.live + taken > self.peak:
            self.peak = self.live + taken
            self.reached()
        return result

    def _born(self, storage: torch.UntypedStorage) -> None:
        key, nbytes = storage._cdata, storage.nbytes()
        if key in self.alive:
            return
        self.alive[key] = weakref.ref(storage, lambda _: self.dies(key, nbytes))
        self.live += nbytes

    def dies(self, key: int, nbytes: int) -> None:
        """A storage is gone."""
        self.live -= nbytes
        del self.alive[key]

    def reached(self) -> None:
        """A new peak was reached."""


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
        attended = fused(*args, **kwargs)
        if attended is not None:
            return attended
    return decompose(func, args, kwargs)


def fused(*args: Any, **kwargs: Any) -> Tensor | None:
    """An attention by the fused operator that this torch chooses for it; None where it is products."""
    operator = FUSED.get((args[0].device.type, backend(*args, **kwargs)))
    return None if operator is None else operator(*args, **kwargs)


def backend(*args: Any, **kwargs: Any) -> int:
    """The backend that this torch chooses for such an attention on its device, asked of tensors without values."""
    with _disable_current_modes():
        alike: list[Any] = [_alike(argument) if isinstance(argument, Tensor) else argument for argument in args]
        return int(torch._fused_sdp_choice(*alike, **kwargs))


def _alike(tensor: Tensor) -> Tensor:
    """A tensor that a kernel is chosen by: on a CPU over next to no memory, on a GPU of the same strides."""
    if tensor.device.type == "cpu":
        alike = stand_in(tensor)
    else:
        alike = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device)
    return alike.requires_grad_(tensor.requires_grad and torch.is_grad_enabled())


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


def _on_cuda(kernel: str, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **named: Any) -> Tensor:
    """The output of a fused operator of CUDA: "flash", which takes no mask, "efficient" or "cudnn"."""
    given = dict(zip(("attn_mask", "dropout_p", "is_causal"), rest, strict=False)) | named
    mask = given.pop("attn_mask", None)
    given.pop("enable_gqa", None)
    masked = {} if kernel == "flash" else {"attn_bias": mask, "compute_log_sumexp": False}
    fused = getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}_attention")
    output: Tensor = fused(query=query, key=key, value=value, **given, **masked)[0]
    return output


# (type of device, backend) -> the operator with its outputs; any other backend is products around a softmax. Those of
# CUDA have never run on a GPU.
FUSED: dict[tuple[str, int], Callable[..., Tensor]] = {
    ("cpu", SDPBackend.FLASH_ATTENTION.value): _on_cpu,
    ("cuda", SDPBackend.FLASH_ATTENTION.value): partial(_on_cuda, "flash"),
    ("cuda", SDPBackend.EFFICIENT_ATTENTION.value): partial(_on_cuda, "efficient"),
    ("cuda", SDPBackend.CUDNN_ATTENTION.value): partial(_on_cuda, "cudnn"),
}


def _tensors(tree: Any) -> list[Tensor]:
    """The tensors of a tree that have one storage: sparse ones do not."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor) and leaf.layout == torch.strided]
