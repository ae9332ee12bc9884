"""Costs of a case without running it on a device: parameters, MACs, bytes, predicted memory, formulas, operators."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mixprof import lowerings
from mixprof.data.case import QUANTIZED, STEP, Case
from mixprof.data.errors import Unsupported, one_line
from mixprof.data.json import to_builtins
from mixprof.data.launch import StepMemory
from mixprof.lowerings import cast
from mixprof.lowerings.steps import MIXED
from mixprof.machine.process import torch_dtype
from mixprof.metrics import flops, memory_plan, module_tree, step_costs
from mixprof.metrics.operators import trace
from mixprof.worker import feeds, modules, step_prediction
from mixprof.worker.modules import Built

if TYPE_CHECKING:
    from mixprof.symbolic.derive import Observed
    from mixprof.symbolic.formula import Point

SMALLEST_IMAGE = 32  # pixels along a side that a network is asked for


def on_meta(source: Mapping[str, Any], case: Case) -> Built:
    """A case's module and example on `meta`, where nothing is computed."""
    built = modules.build(source, case, "meta")
    return replace(built, module=modules.to_meta(built.module) if source["user"] else built.module)


@dataclass(frozen=True)
class Forward:
    """A module that was counted, its inputs, and where: "meta", "fake" or "cpu"."""

    module: nn.Module
    inputs: list[Tensor]
    counts: flops.Counts
    where: str
    own: nn.Module  # whose paths the counts have
    kept: Mapping[str, int]  # bytes that each of its modules returns


def count(request: dict[str, Any]) -> dict[str, Any]:
    """Count a case's module: on `meta`; where its code cannot run there on fake tensors, or on the CPU for real."""
    source, case = request["source"], Case.from_json(request["case"])
    with _plain_layers():
        if source["kind"] == "call":
            function: Any = modules.build(source, case).module.call
            return _of_call(flops.count(function))
        counted = _counted(source, case)
        params = sum(parameter.numel() for parameter in counted.module.parameters())
        memory = _step_memory(source, case, counted)
        peak, weights = _memory(source, case, counted, memory)
    counts, dtype = counted.counts, torch_dtype(case.dtype)
    return {
        "status": "ok",
        "params": params,
        "macs": counts.macs,
        "flops": counts.flops,
        "macs_by_op": counts.macs_by_op,
        "min_bytes": None if case.dtype in QUANTIZED else counts.min_bytes,
        **_of_step(case, counted, memory),
        "uncounted_ops": list(counts.uncounted_ops),
        "matrix_macs": counts.macs - counts.vector_macs,
        "vector_macs": counts.vector_macs,
        "predicted_peak_bytes": peak,
        "weights_bytes": weights,
        "input_bytes": sum(_nbytes(tensor, dtype) for tensor in counted.inputs),
        "counted_on": counted.where,
        **_tree(source, counted, bool(request.get("tree"))),
    }


def _of_step(case: Case, counted: Forward, memory: StepMemory | None) -> dict[str, Any]:
    updates = [each.min_bytes for each in counted.counts.operators if each.name == step_costs.UPDATE]
    backward = counted.counts.backward_macs if case.step in ("backward", "train") else None
    step_memory = None if memory is None else to_builtins(memory)
    return {"backward_macs": backward, "optimizer_bytes": sum(updates) or None, "step_memory": step_memory}


def _step_memory(source: Mapping[str, Any], case: Case, counted: Forward) -> StepMemory | None:
    """The predicted memory of a training step; None in inference, and where fake tensors cannot tell."""
    if case.step == STEP or counted.where != "meta":
        return None
    try:
        return step_prediction.predicted(source, case, on_meta(source, case))
    except Exception:  # of the user's own code: any
        if not _may_run(source):
            raise
        return None


def _tree(source: Mapping[str, Any], counted: Forward, wanted: bool) -> dict[str, Any]:
    if not wanted:
        return {}
    branches = module_tree.tree(counted.own, counted.counts, counted.kept, declared=not _may_run(source))
    return {"tree": [branch.to_json() for branch in branches]}


@contextlib.contextmanager
def _plain_layers() -> Iterator[None]:
    """Layers as they are written: the fused fast path of an encoder skips padding, which depends on values."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _memory(
    source: Mapping[str, Any], case: Case, counted: Forward, of_step: StepMemory | None
) -> tuple[int | None, int]:
    """Predicted peak bytes of an eager run, None where fake tensors cannot tell, and bytes of the weights.

    of_step: the predicted memory of a training step, whose optimizer's state is part of its peak.
    """
    dtype = torch_dtype(case.dtype)
    if of_step is not None and of_step.peak_bytes is not None and of_step.weights_bytes is not None:
        return of_step.peak_bytes - of_step.weights_bytes, of_step.weights_bytes
    if counted.where != "meta" or case.step != STEP:
        return None, sum(_nbytes(parameter, dtype) for parameter in counted.module.parameters())
    eager = modules.specialize(source, counted.module, "eager").to(dtype)
    weights = sum(_nbytes(parameter, dtype) for parameter in eager.parameters())
    try:
        return predicted_peak(eager, counted.inputs, case.device), weights
    except Exception:  # of the user's own code: any
        if not _may_run(source):
            raise
        return None, weights


def predicted_peak(eager: nn.Module, inputs: list[Tensor], device: str) -> int:
    """Predicted peak bytes of an eager forward, with the kernels of a CUDA device where one is; else with a CPU's."""
    if device.startswith("cuda") and torch.cuda.is_available():
        try:
            return memory_plan.predict_peak(eager, *inputs, device=device)
        except (RuntimeError, NotImplementedError) as error:
            print(f"mixprof: memory is predicted with a CPU's kernels: {one_line(error)}", file=sys.stderr)
    return memory_plan.predict_peak(eager, *inputs)


def _nbytes(tensor: Tensor, dtype: torch.dtype) -> int:
    return tensor.numel() * (dtype.itemsize if tensor.is_floating_point() else tensor.element_size())


def _counted(source: Mapping[str, Any], case: Case) -> Forward:
    """Count where the module's code can run. Unsupported with what its forward wants where it runs nowhere."""
    try:
        return _on_meta(source, case)
    except Unsupported:
        raise
    except Exception as error:
        if not _may_run(source):
            raise
        first = error
    built = modules.build(source, case)
    inputs = _differentiable(source, case, list(built.example.tensors))
    module = built.example.bind(_prepared(case, built))
    with torch.set_grad_enabled(case.step != STEP):
        try:
            with FakeTensorMode(allow_non_fake_inputs=True):
                fake = memory_plan.fake_module(module, "cpu")
                faked = memory_plan.fake(inputs, "cpu")
                return _forward(case, built.module, (module, inputs), (fake, faked), "fake")
        except Exception:  # what it looks at has no value there
            pass
        try:
            return _forward(case, built.module, (module, inputs), (module, inputs), "cpu")
        except Exception as error:  # of the user's own code: any
            reason = feeds.explain(built.module, built.example, error) or one_line(error)
            raise Unsupported(f"{case.model}: {reason}") from first


def _forward(
    case: Case,
    own: nn.Module,
    bound: tuple[nn.Module, list[Tensor]],
    run: tuple[Callable[..., object], list[Tensor]],
    where: str,
) -> Forward:
    """Count what runs in the place of a bound module and its inputs."""
    function, inputs = run
    with module_tree.outputs(own) as kept:
        counts = step_costs.count(case.step, function, inputs, own, update_bytes=_update_bytes(case))
    return Forward(*bound, counts, where, own, kept)


def _update_bytes(case: Case) -> int:
    """Bytes that the optimizer of a case moves for each parameter; autocast keeps float32 ones."""
    optimizer = lowerings.parse(case.lowering)[1].get("optimizer", "adamw")
    return step_costs.UPDATE_VALUES[optimizer] * torch_dtype(case.dtype).itemsize


def _on_meta(source: Mapping[str, Any], case: Case) -> Forward:
    dtype: torch.dtype = getattr(torch, case.dtype[4:]) if case.dtype in MIXED else torch_dtype(case.dtype)
    built = on_meta(source, case)
    inputs = _differentiable(source, case, [cast(tensor.to("meta"), dtype) for tensor in built.example.tensors])
    built.module.to(dtype)  # of autocast, what multiplies; its sums and norms stay wider, which is not counted
    module = built.example.bind(_prepared(case, built))
    with torch.inference_mode(case.step == STEP):
        return _forward(case, built.module, (module, inputs), (module, inputs), "meta")


def _prepared(case: Case, built: Built) -> nn.Module:
    return built.module if case.step == STEP else step_costs.prepare(built.module, built.trained)


def _differentiable(source: Mapping[str, Any], case: Case, inputs: list[Tensor]) -> list[Tensor]:
    """The inputs of a training step: a mixer's require a gradient, since it stands within a network."""
    if case.step == STEP or source["kind"] != "mixer":
        return inputs
    return [tensor.detach().requires_grad_(tensor.is_floating_point()) for tensor in inputs]


def _may_run(source: Mapping[str, Any]) -> bool:
    """Whether a model is a user's, whose code decides where it can run."""
    return source["specialize"] is None


def _of_call(counts: flops.Counts) -> dict[str, Any]:
    """The MACs that a function does through PyTorch. Unsupported where it does none."""
    if not counts.macs:
        raise Unsupported("a function that does no multiply-accumulate through PyTorch: there is nothing to count")
    known = {"macs": counts.macs, "flops": counts.flops, "macs_by_op": counts.macs_by_op}
    unknown: dict[str, object] = {"params": None, "predicted_peak_bytes": None, "counted_on": "cpu"}
    sizes = {"weights_bytes": 0, "input_bytes": 0}
    return {"status": "ok", **known, "uncounted_ops": list(counts.uncounted_ops), **unknown, **sizes}


def derive(request: dict[str, Any]) -> dict[str, Any]:
    """Exact formulas of the MACs, parameters and minimal bytes of a model's step, or the reason why it has none.

    Formulas in the request are those of other sources: they are returned where they still hold.
    """
    from mixprof.symbolic import derive as symbolic
    from mixprof.symbolic import shelf

    source = request["source"]
    if source["kind"] == "call":
        return {"status": "unsupported", "reason": "a function has no sizes that a formula could be in"}
    axes: dict[str, Any] = {
        "has_window": "window" in source["accepts"],
        "has_channels": "channels" in source["accepts"],
        "smallest": 1 if source["kind"] == "mixer" else SMALLEST_IMAGE,
    }
    old = request.get("formulas")
    observe: Callable[[Point], Observed] = partial(_observe, source, request.get("step", STEP))
    try:
        if old is not None and symbolic.holds(shelf.from_json(old), observe, **axes):
            return {"status": "ok", "formulas": old}
        formulas = symbolic.derive(observe, **axes)
    except symbolic.NoFormula as error:
        return {"status": "unsupported", "reason": f"no formula could be proven: {error}"}
    return {"status": "ok", "formulas": shelf.to_json(formulas)}


def _observe(source: Mapping[str, Any], step: str, point: Point) -> Observed:
    """The counts of a model's step at a point, in float32 on `meta`."""
    from mixprof.symbolic.derive import Impossible, Observed

    sides, sizes = (point.height, point.width), (point.window, point.channels)
    case = Case("", "eager", "cpu", "float32", "contiguous", "hot", point.batch, sides, *sizes, step)
    try:
        counted = _on_meta(source, case)
    except Exception as error:  # of the user's own code: any
        raise Impossible(one_line(error)) from error
    counts = counted.counts
    operators = tuple((operator.name, operator.module, operator.macs, operator.parts) for operator in counts.operators)
    params = {name: parameter.numel() for name, parameter in counted.module.named_parameters()}
    return Observed(operators, params, counts.sizes, counts.uncounted_ops)


def operators(request: dict[str, Any]) -> dict[str, Any]:
    """The operators of a case's eager form as its device would run them, on `meta`: nothing is computed."""
    from mixprof.lowerings import eager

    source, case = request["source"], Case.from_json(request["case"])
    built = on_meta(source, case)
    target = lowerings.Target("meta", case.dtype, case.layout, {}, request["threads"], Path(), built.example.images, "")
    module = modules.specialize(source, built.example.bind(built.module), "eager")
    inputs = tuple(tensor.to("meta") for tensor in built.example.tensors)
    module, placed = eager.place(module, inputs, target)
    traced = trace(module, *placed, device=case.device.split(":")[0])
    return {"status": "ok", "operators": [operator.to_json() for operator in traced]}
