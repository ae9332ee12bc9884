"""Eager PyTorch: the module as it is, on its device."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from mixprof.data.errors import Unsupported
from mixprof.lowerings import Lowered, Target
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
    module = module.to(device=target.device, dtype=dtype)
    module = module.to(memory_format=memory_format)  # type: ignore[call-overload]
    of_input = memory_format if target.images else torch.contiguous_format
    placed = (x.to(device=target.device, dtype=dtype).contiguous(memory_format=of_input) for x in inputs)
    return module, tuple(placed)


def lower(module: nn.Module, inputs: tuple[Tensor, ...], target: Target) -> Lowered:
    """The module itself. Options: `sdpa=` forces a backend of attention, `graph=on` replays a CUDA graph."""
    start = time.perf_counter()
    module, inputs = place(module, inputs, target)
    backend = target.options.get("sdpa")
    if backend is not None:
        # Entered once for the whole process: a context per forward would be part of its time.
        PROCESS_WIDE.enter_context(sdpa_kernel(SDPA[backend]))

    def run() -> Tensor:
        output: Tensor = module(*inputs)
        return output

    if target.options.get("graph") == "on":
        return _graphed(run, target, start)
    try:
        run()
    except RuntimeError as error:
        if backend is not None and ("No available kernel" in str(error) or "No viable backend" in str(error)):
            raise Unsupported(f"lowering 'eager:sdpa={backend}': torch has no such kernel for this case") from error
        raise
    return Lowered(run, lambda: run().cpu(), time.perf_counter() - start, proof={"sdpa": backend} if backend else {})


def _graphed(run: Callable[[], Tensor], target: Target, start: float) -> Lowered:
    if target.device == "cpu":
        raise Unsupported("lowering 'eager:graph=on': CUDA graphs need a CUDA device")
    for _ in range(3):
        run()
    torch.cuda.synchronize(target.device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = run()

    def read() -> Tensor:
        output.fill_(float("nan"))
        graph.replay()
        return output.cpu()

    return Lowered(graph.replay, read, time.perf_counter() - start, proof={"cuda_graph": True})
