"""A case on sim:0: lowered and checked on the CPU, its time that of simulated kernels, one for each operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import torch
from torch import Tensor, nn

from mixprof import lowerings
from mixprof.data.case import Case
from mixprof.data.errors import Unsupported
from mixprof.lowerings import Lowered, Target, eager
from mixprof.machine import simulation
from mixprof.machine.devices.cpu import Cpu
from mixprof.machine.devices.simulated import Simulated
from mixprof.machine.simulation import Gpu, Kernel
from mixprof.metrics.flops import Counts
from mixprof.metrics.memory import weights_bytes
from mixprof.metrics.operators import Operator, dispatched

GRAPHED = ("graph", "reduce-overhead", "max-autotune")  # options by which a forward is one launch
ON_GPU = {"sdpa", "graph"}  # options of eager that the CPU has not


def lower(case: Case, module: nn.Module, inputs: tuple[Tensor, ...], target: Target, seed: str) -> Lowered:
    """Lower for the CPU; the forward is one of a simulated GPU.

    Unsupported for a lowering that is not torch's. A lowering that fuses has one kernel for each operator that
    multiplies, and those that only move or map values in it.
    """
    entry, options = lowerings.entry_of(case.lowering), target.options
    if case.lowering.split(":")[0] not in ("eager", "compile"):
        raise Unsupported(f"lowering '{case.lowering}': sim:0 simulates eager and compile alone")
    gpu = simulation.configured()
    on_cpu = replace(target, device="cpu", options={key: value for key, value in options.items() if key not in ON_GPU})
    kernels = kernels_of(gpu, operators_of(module, inputs, on_cpu), case.dtype, fused=entry.fuses)
    if set(options) & set(GRAPHED):
        kernels = simulation.graph(gpu, kernels)
    lowered = lowerings.lower(case.lowering.split(":")[0], module, inputs, on_cpu)
    device = Simulated(gpu, f"{case.key}/{seed}", case.device)
    assert lowered.forward is not None
    _allocate(device, module, inputs, lowered)
    truth = {mode: asdict(simulation.truth(gpu, kernels, cold=mode == "cold")) for mode in ("hot", "cold")}
    return replace(
        lowered,
        forward=device.forward(kernels),
        compilations=lambda: 0,
        proof={**lowered.proof, "simulated": {"kernels": len(kernels), "truth": truth}},
        device=device,
    )


def operators_of(module: nn.Module, inputs: tuple[Tensor, ...], target: Target) -> list[Operator]:
    """The operators of one eager forward on the CPU."""
    placed, examples = eager.place(module, inputs, target)
    with torch.inference_mode():
        return dispatched(lambda: placed(*examples))


def kernels_of(gpu: Gpu, operators: Sequence[Operator], dtype: str, *, fused: bool = False) -> list[Kernel]:
    """The simulated kernels of these operators, in their order."""
    wide = dtype in ("float32", "tf32")
    kernels = [
        simulation.kernel(
            gpu, kind=each.kind, flops=Counts(each.macs, {}, ()).flops,
            moved_bytes=each.read_bytes + each.written_bytes, wide=wide,
        )
        for each in operators
        if each.kind != "move" or not fused
    ]  # fmt: skip
    return kernels or [simulation.kernel(gpu, kind="move", flops=0, moved_bytes=0, wide=wide)]


def _allocate(device: Simulated, module: nn.Module, inputs: tuple[Tensor, ...], lowered: Lowered) -> None:
    """Give the forward its memory. OutOfMemoryError where the simulated GPU is too small for it."""
    assert lowered.forward is not None
    device.memory.allocate(weights_bytes(module))
    for tensor in inputs:
        device.memory.allocate(tensor.nbytes)
    device.forward_bytes = Cpu().allocator_peak(lowered.forward)
    device.allocator_peak(lowered.forward)
