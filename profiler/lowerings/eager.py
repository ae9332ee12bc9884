"""Eager PyTorch: the module as it is, on its device."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from mixprof.data.errors import Unsupported
from mixprof.lowerings import Lowered, Target, cast, convert
from mixprof.lowerings.trees import tensors_of
from mixprof.machine import devices
from mixprof.machine.process import torch_dtype

SDPA = {
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}

PROCESS_WIDE = contextlib.ExitStack()  # closed when this process ends, which runs one case


def place(module: nn.Module, inputs: tuple[Tensor, ...], target: Target) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Module and inputs in the target's dtype, on its device, in its layout.

    A layout speaks of four-dimensional tensors: a network's (B, 3, H, W) input and convolution
    weights. A mixer's (B, H, W, C) map is left as it is.
    """
    dtype = torch_dtype(target.dtype)
    channels_last = target.layout == "channels_last"
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    module = convert(module, dtype).to(target.device)
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=memory_format)

    def placed(x: Tensor) -> Tensor:
        of_input = memory_format if target.images and x.dim() == 4 else torch.contiguous_format
        return cast(x, dtype).to(target.device).contiguous(memory_format=of_input)

    return module, tuple(map(placed, inputs))


def lower(module: nn.Module, inputs: tuple[Tensor, ...], target: Target) -> Lowered:
    """The module itself. Options: `sdpa=` forces a backend of attention, `graph=on` replays a CUDA graph."""
    start = time.perf_counter()
    module, inputs = place(module, inputs, target)
    backend = target.options.get("sdpa")
    if backend is not None:
        # Entered once for the whole process: a context per forward would be part of its time.
        PROCESS_WIDE.enter_context(sdpa_kernel(SDPA[backend]))

    def run() -> object:
        return module(*inputs)

    if target.options.get("graph") == "on":
        return _graphed(run, target, start)
    try:
        run()
    except RuntimeError as error:
        if backend is not None and ("No available kernel" in str(error) or "No viable backend" in str(error)):
            raise Unsupported(f"lowering 'eager:sdpa={backend}': torch has no such kernel for this case") from error
        raise
    proof = {"sdpa": backend} if backend else {}
    return of_function(run, time.perf_counter() - start, proof=proof)


def of_function(run: Callable[[], object], build_s: float, **details: Any) -> Lowered:
    """A function of torch as a lowering: its outputs are whatever tensors it returns."""

    def read_all() -> list[Tensor]:
        return [tensor.cpu() for tensor in tensors_of(run())]

    return Lowered(run, lambda: read_all()[0], build_s, read_all=read_all, **details)


def _graphed(run: Callable[[], object], target: Target, start: float) -> Lowered:
    outputs: list[Tensor] = []

    def keep() -> None:
        outputs[:] = tensors_of(run())

    replay = devices.of(target.device).capture(keep)

    def read_all() -> list[Tensor]:
        for output in outputs:
            if output.is_floating_point():
                output.fill_(float("nan"))
        replay()
        return [output.cpu() for output in outputs]

    build_s = time.perf_counter() - start
    return Lowered(replay, lambda: read_all()[0], build_s, proof={"cuda_graph": True}, read_all=read_all)
