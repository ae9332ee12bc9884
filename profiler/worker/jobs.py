"""What a worker process does: each job is a function of its request that returns JSON values."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixprof import lowerings
from mixprof.data.errors import Unavailable, Unsupported, one_line
from mixprof.data.types import Case, Launch, digest
from mixprof.machine import cpu_contention, device
from mixprof.worker import files
from mixprof.worker.origin import roots

if TYPE_CHECKING:
    import torch

    from mixprof.metrics import flops
    from mixprof.metrics.operators import Watch
    from mixprof.symbolic.derive import Observed
    from mixprof.symbolic.formula import Point

PROFILED_FORWARDS = 50
PROFILED_S = 5.0  # of eager forwards, at most about so long
SMALLEST_IMAGE = 32  # pixels along a side that a network is asked for
FACTORY_KEYWORDS = ("resolution", "window", "batch", "channels")


def environment(request: dict[str, Any]) -> dict[str, Any]:
    """Devices, versions and the testbed of this machine."""
    return {
        "status": "ok",
        "devices": device.devices(),
        "versions": device.versions(),
        "testbed": device.testbed(request["threads"], request["allocator"]),
        "informing": device.informing(),
    }


def describe(request: dict[str, Any]) -> dict[str, Any]:
    """Which keywords a factory of the user's accepts."""
    function = _resolve(request["source"])
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {"status": "ok", "accepts": []}
    return {"status": "ok", "accepts": [name for name in FACTORY_KEYWORDS if name in parameters]}


def _resolve(source: dict[str, Any]) -> Callable[..., torch.nn.Module]:
    """The factory "module:function"; the user's current folder comes first when it is the user's."""
    if source["user"]:
        sys.path[:0] = roots()
        importlib.invalidate_caches()
    name, _, attribute = source["factory"].partition(":")
    function: Callable[..., torch.nn.Module] = getattr(importlib.import_module(name), attribute)
    return function


def _build(source: dict[str, Any], case: Case) -> torch.nn.Module:
    """The case's module in its published form, float32, in eval mode. A value it cannot have is Unsupported."""
    height, width = case.resolution
    values = {
        "resolution": height if height == width else (height, width),
        "window": case.window,
        "batch": case.batch,
        "channels": case.channels,
    }
    keywords = {name: values[name] for name in source["accepts"]}
    factory = _resolve(source)
    try:
        module = factory(**source["arguments"], **keywords)
    except ValueError as error:
        raise Unsupported(f"{case.model}: {error}") from error
    # Kernels are chosen by it even in inference mode: attention falls back, a product folds and copies.
    return module.eval().requires_grad_(False)


def _specialize(source: dict[str, Any], module: torch.nn.Module, lowering: str) -> torch.nn.Module:
    """The module in its form for a lowering, if its source knows one."""
    if source["specialize"] is None:
        return module
    name, _, attribute = source["specialize"].partition(":")
    try:
        specialized: torch.nn.Module = getattr(importlib.import_module(name), attribute)(
            module, lowerings.form_of(lowering)
        )
    except ValueError as error:
        raise Unsupported(f"lowering '{lowering}': {error}") from error
    return specialized


def input_shape(case: Case, kind: str) -> tuple[int, ...]:
    """(B, H, W, C) of a mixer, (B, 3, H, W) of a network."""
    if kind == "mixer":
        assert case.channels is not None or case.model == "anchor_v1"
        return (case.batch, *case.resolution, case.channels or 96)
    return (case.batch, 3, *case.resolution)


def count(request: dict[str, Any]) -> dict[str, Any]:
    """Parameters, MACs, minimal bytes and predicted memory of a case, on `meta`: nothing is computed."""
    import torch

    from mixprof.metrics import flops, memory_plan

    source, case = request["source"], Case.from_json(request["case"])
    dtype = device.torch_dtype(case.dtype)
    example = torch.empty(input_shape(case, source["kind"]), device="meta")
    module = _on_meta(source, case).to(dtype)
    params = sum(each.numel() for each in module.parameters())
    with torch.inference_mode():
        counts = flops.count(module, example.to(dtype))
        if source["kind"] == "call":
            return _counts_of_call(counts)
        eager = _specialize(source, module, "eager")
        activations = memory_plan.predict_peak(eager.to(dtype), example.to(dtype))
    return {
        "status": "ok",
        "params": params,
        "macs": counts.macs,
        "flops": counts.flops,
        "macs_by_op": counts.macs_by_op,
        "min_bytes": counts.min_bytes,
        "uncounted_ops": list(counts.uncounted_ops),
        "matrix_macs": counts.macs - counts.vector_macs,
        "vector_macs": counts.vector_macs,
        "predicted_peak_bytes": activations,
        "weights_bytes": sum(each.numel() * each.element_size() for each in eager.parameters()),
        "input_bytes": example.numel() * example.to(dtype).element_size(),
    }


def _counts_of_call(counts: flops.Counts) -> dict[str, Any]:
    """What is known of a function: the MACs that it does through PyTorch. Unsupported where it does none."""
    if not counts.macs:
        raise Unsupported("a function that does no multiply-accumulate through PyTorch: there is nothing to count")
    found = {"macs": counts.macs, "flops": counts.flops, "macs_by_op": counts.macs_by_op}
    unknown = dict.fromkeys(("params", "predicted_peak_bytes"))
    sizes = {"weights_bytes": 0, "input_bytes": 0}
    return {"status": "ok", **found, "uncounted_ops": list(counts.uncounted_ops), **unknown, **sizes}


def derive(request: dict[str, Any]) -> dict[str, Any]:
    """Exact formulas of a model's MACs, parameters and minimal bytes, or the reason why it has none.

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
    try:
        if old is not None and symbolic.holds(shelf.from_json(old), partial(_observe, source), **axes):
            return {"status": "ok", "formulas": old}
        found = symbolic.derive(partial(_observe, source), **axes)
    except symbolic.NoFormula as error:
        return {"status": "unsupported", "reason": f"no formula could be proven: {error}"}
    return {"status": "ok", "formulas": shelf.to_json(found)}


def _observe(source: dict[str, Any], point: Point) -> Observed:
    """What is counted of a model at a point, in float32 on `meta`."""
    import torch

    from mixprof.metrics import flops
    from mixprof.symbolic.derive import Impossible, Observed

    sides = (point.height, point.width)
    case = Case("", "eager", "cpu", "float32", "contiguous", "hot", point.batch, sides, point.window, point.channels)
    try:
        module = _on_meta(source, case)
        with torch.inference_mode():
            counts = flops.count(module, torch.empty(input_shape(case, source["kind"]), device="meta"))
    except Exception as error:  # of the user's own code: any
        raise Impossible(one_line(error)) from error
    operators = tuple((each.name, each.module, each.macs, each.parts) for each in counts.operators)
    params = {name: each.numel() for name, each in module.named_parameters()}
    return Observed(operators, params, counts.sizes, counts.uncounted_ops)


def operators(request: dict[str, Any]) -> dict[str, Any]:
    """The operators of a case's eager form as its device would run them, on `meta`: nothing is computed."""
    import torch

    from mixprof.lowerings import eager
    from mixprof.metrics.operators import trace

    source, case = request["source"], Case.from_json(request["case"])
    images = source["kind"] == "network"
    target = lowerings.Target("meta", case.dtype, case.layout, {}, request["threads"], Path(), images, "")
    module = _specialize(source, _on_meta(source, case), "eager")
    module, inputs = eager.place(module, (torch.empty(input_shape(case, source["kind"]), device="meta"),), target)
    found = trace(module, *inputs, device=case.device.split(":")[0])
    return {"status": "ok", "operators": [each.to_json() for each in found]}


def peaks(request: dict[str, Any]) -> dict[str, Any]:
    """What this device can do at most: matrix product, vector multiply-add, copy."""
    from mixprof.metrics.peaks import measure

    device.prepare(request["device"], request["dtype"], request["threads"])
    return {"status": "ok", "peaks": measure(request["device"], request["dtype"])}


def _on_meta(source: dict[str, Any], case: Case) -> torch.nn.Module:
    import torch

    if not source["user"]:
        with torch.device("meta"):
            return _build(source, case)
    return _build(source, case).to("meta")


def _tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and buffer of a module by its name, also the buffers that its state_dict leaves out."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def _assign(module: torch.nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Put tensors in the places of a module's own, copied."""
    import torch

    for name, value in state.items():
        path, _, attribute = name.rpartition(".")
        owner, own = module.get_submodule(path), value.detach().clone()
        is_parameter = attribute in owner._parameters
        setattr(owner, attribute, torch.nn.Parameter(own, requires_grad=False) if is_parameter else own)


def _with_state(source: dict[str, Any], case: Case, state: dict[str, torch.Tensor]) -> torch.nn.Module:
    """The case's module with the reference's weights. A registered one is built on `meta`, which draws none."""
    import torch

    if source["specialize"] is None:
        module = _build(source, case)
    else:
        with torch.device("meta"):
            module = _build(source, case)
    _assign(module, state)
    return module


def prepare(request: dict[str, Any]) -> dict[str, Any]:
    """Weights, inputs and the reference output of a case, written to one file."""
    import torch

    from mixprof.metrics import accuracy

    source, case = request["source"], Case.from_json(request["case"])
    torch.set_num_threads(request["threads"])
    module = _build(source, case)
    seed = int(digest([case.model, case.resolution, case.window, case.channels]), 16) % 2**63
    generator = torch.Generator().manual_seed(seed)
    example = accuracy.random_input(input_shape(case, source["kind"]), generator, images=source["kind"] == "network")
    accuracy.initialize(module, (example[:1],), seed)
    dtype = device.torch_dtype(case.dtype)
    state = {
        name: value.to(dtype).float() if value.is_floating_point() else value
        for name, value in _tensors(module).items()
    }
    _assign(module, state)
    example = example.to(dtype).float()
    expected = accuracy.reference(module, (example,))
    if not bool(torch.isfinite(expected).all()):
        return {"status": "inaccurate", "reason": "the float64 reference itself holds NaN or Inf"}
    path = Path(request["reference"])
    temporary = path.with_name(path.name + ".tmp")
    torch.save({"state": state, "inputs": [example], "expected": expected}, temporary)
    os.replace(temporary, path)
    return {"status": "ok"}


@dataclass(frozen=True)
class Ready:
    """A case that is lowered, and what its output is compared with."""

    case: Case
    lowered: lowerings.Lowered
    expected: torch.Tensor
    formulation: list[str]
    weights_bytes: int
    built_s: float
    watch: Watch | None = None  # of its modules, where its operators are to be timed

    def inference(self) -> contextlib.AbstractContextManager[object]:
        """The mode its forwards run in."""
        import torch

        held = contextlib.ExitStack()
        held.enter_context(torch.inference_mode(lowerings.entry_of(self.case.lowering).inference_mode))
        held.enter_context(torch.no_grad())
        held.callback(self.lowered.close)
        return held


def lower_case(request: dict[str, Any]) -> Ready:
    """Make a case's module with the reference's weights and lower it."""
    import torch

    from mixprof.metrics import memory

    start = time.perf_counter()
    source, case, settings = request["source"], Case.from_json(request["case"]), request["measure"]
    entry, options = lowerings.parse(case.lowering)
    if settings.get("profile"):
        options = {name: value for name, value in options.items() if name != "graph"}  # a graph has no layers
    if entry.engine:
        device.prepare_cpu(settings["threads"])
    else:
        device.prepare(case.device, case.dtype, settings["threads"])
    saved = torch.load(request["reference"], weights_only=True, mmap=True)
    module = _with_state(source, case, saved["state"])
    cache = Path(request["cache"])
    key = digest([case.to_json(), source["factory"], source["arguments"], device.versions()])
    images = source["kind"] == "network"
    name = case.lowering.split(":")[0]
    target = lowerings.Target(
        case.device, case.dtype, case.layout, options, settings["threads"], cache, images, key, name
    )
    # no_grad, not inference_mode, while tracing: exporters and inductor's cache refuse inference tensors.
    with torch.no_grad():
        module = _specialize(source, module, case.lowering)
        formulation = sorted({str(each.formulation) for each in module.modules() if hasattr(each, "formulation")})
        dtype = device.torch_dtype(case.dtype)
        weights_bytes = memory.weights_bytes(module.to(dtype))
        lowered = lowerings.lower(case.lowering, module, tuple(saved["inputs"]), target)
    expected = saved["expected"].clone()
    watch = None
    if settings.get("profile") and entry.layers == "operators":
        from mixprof.metrics.operators import Watch

        watch = Watch(module)
    return Ready(case, lowered, expected, formulation, weights_bytes, time.perf_counter() - start, watch)


def launch(request: dict[str, Any]) -> dict[str, Any]:
    """One launch of a case: lower, check the output, time, measure memory. The fields of a Launch."""
    ready = lower_case(request)
    if ready.lowered.forward is None:
        found = _built(ready.lowered, ready.case, ready.expected, ready.formulation)
        return {**found, "environment": {"built_s": ready.built_s}}
    with ready.inference():
        if ready.watch is not None:
            found = operator_times(ready.lowered, ready.watch, ready.case.device)
        elif request["measure"].get("profile"):
            found = layer_times(ready.lowered)
        else:
            found = measure(
                ready.lowered, ready.case, request["measure"], ready.expected, ready.formulation, ready.weights_bytes
            )
    return {**found, "environment": {**found["environment"], "built_s": ready.built_s}}


def _built(lowered: lowerings.Lowered, case: Case, expected: torch.Tensor, formulation: list[str]) -> dict[str, Any]:
    """An engine that no device here can run: its graph is checked in onnxruntime instead, which refuses bfloat16."""
    from mixprof.metrics import accuracy

    proof = {**lowered.proof, "formulation": formulation}
    found = Launch(
        "built",
        f"{case.device} is not there: built only, its graph checked in onnxruntime on the CPU",
        build_s=lowered.build_s,
        build_cached=lowered.build_cached,
        artifact_bytes=lowered.artifact_bytes,
    )
    try:
        error = accuracy.relative_error(lowered.read(), expected)
    except Unsupported as refusal:
        return replace(found, proof={**proof, "onnx_relative_error": None, "onnx_unchecked": str(refusal)}).to_json()
    proof["onnx_relative_error"] = None if error == float("inf") else error
    if error > accuracy.TOLERANCES[case.dtype]:
        reason = (
            f"relative error of the exported graph: {error:.2g}, expected at most {accuracy.TOLERANCES[case.dtype]:g}"
        )
        return replace(found, status="inaccurate", reason=reason, proof=proof).to_json()
    return replace(found, proof=proof).to_json()


def layer_times(lowered: lowerings.Lowered) -> dict[str, Any]:
    """Milliseconds of each layer and role of an engine, in a launch of its own. Never run on a GPU yet."""
    from mixprof.lowerings import roles

    if lowered.layer_times is None:
        raise Unsupported("this lowering has no times of its layers")
    layer_ms = dict(lowered.layer_times(PROFILED_FORWARDS))
    role_ms = roles.role_times(layer_ms, lowered.proof.get("roles", {}))
    return Launch("ok", proof={"layer_ms": layer_ms, "role_ms": role_ms}).to_json()


def operator_times(lowered: lowerings.Lowered, watch: Watch, device: str) -> dict[str, Any]:
    """Milliseconds, MACs and bytes of each stage and role of an eager forward, in a launch of its own."""
    from mixprof.metrics import operators

    assert lowered.forward is not None
    start = time.perf_counter()
    lowered.forward()
    once_s = time.perf_counter() - start
    forwards = max(3, min(PROFILED_FORWARDS, int(PROFILED_S / max(once_s, 1e-6))))
    rows = operators.breakdown(operators.timed(lowered.forward, watch, device, forwards))
    role_ms: dict[str, float] = {}
    for row in rows:
        role_ms[row["role"]] = role_ms.get(row["role"], 0.0) + row["ms"]
    return Launch("ok", proof={"breakdown": rows, "role_ms": role_ms}).to_json()


def measure(
    lowered: lowerings.Lowered,
    case: Case,
    settings: dict[str, Any],
    expected: torch.Tensor | list[torch.Tensor] | None,
    formulation: list[str],
    weights_bytes: int | None,
) -> dict[str, Any]:
    """What is measured of a lowered case, in this order: output, times, memory.

    expected: the first and the last image, or every output whole, or None where nothing says what is right.
    """
    from mixprof import sampling
    from mixprof.metrics import accuracy, latency

    start = time.perf_counter()
    error = _error(lowered, expected)
    tolerance = accuracy.TOLERANCES[case.dtype]
    built = Launch(
        "ok",
        build_s=lowered.build_s,
        build_cached=lowered.build_cached,
        artifact_bytes=lowered.artifact_bytes,
        relative_error=error if error != float("inf") else None,
        proof={**lowered.proof, "formulation": formulation},
    )
    if error is not None and not error <= tolerance:
        said = "the output holds NaN or Inf, or has another shape" if error == float("inf") else f"{error:.2g}"
        reason = f"relative error: {said}, expected at most {tolerance:g} in {case.dtype}"
        return replace(built, status="inaccurate", reason=reason).to_json()
    budget = sampling.budget(case.device, quick=settings["quick"], publication=settings["publication"])
    if settings["seconds"] is not None:
        budget = replace(
            budget, cap_s=settings["seconds"], cap_samples=min(budget.cap_samples, sampling.STEADY_SAMPLES)
        )
    before, load_before = resource.getrusage(resource.RUSAGE_SELF), cpu_contention.read()
    times = latency.measure(lowered, case.device, case.mode, budget)
    after, load_after = resource.getrusage(resource.RUSAGE_SELF), cpu_contention.read()
    measured = replace(
        built,
        status="throttled" if times.throttled else "unstable" if times.unsteady else "ok",
        reason=times.throttled or times.unsteady,
        proof={**(built.proof or {}), "recompiles": times.recompiles},
        gpu_ms=times.gpu_ms,
        enqueue_ms=times.enqueue_ms,
        host_ms=times.host_ms,
        memory=_memory(lowered, case, weights_bytes),
        energy=_energy(lowered, case) if settings["energy"] else None,
        environment={
            "page_faults": after.ru_minflt - before.ru_minflt,
            "involuntary_switches": after.ru_nivcsw - before.ru_nivcsw,
            "dropped_samples": times.dropped,
            "clocks": times.clocks,
            "measure_s": time.perf_counter() - start,
            "lost_cpu_share": cpu_contention.lost_share(load_before, load_after),
            "others_cpus": cpu_contention.others_cpus(load_before, load_after),
            "governor": device.governor(),
        },
    )
    return measured.to_json()


def _error(lowered: lowerings.Lowered, expected: torch.Tensor | list[torch.Tensor] | None) -> float | None:
    """How far the output is from what is expected, after one forward in any case."""
    from mixprof.metrics import accuracy

    if expected is None or isinstance(expected, list):
        outputs = lowered.read_all() if lowered.read_all is not None else [lowered.read()]
        return None if expected is None else accuracy.worst_error(outputs, expected)
    return accuracy.relative_error(lowered.read(), expected)


def _memory(lowered: lowerings.Lowered, case: Case, weights_bytes: int | None) -> dict[str, int | None]:
    """Peaks of further forwards, after the timed ones. What cannot be measured is None."""
    from mixprof.metrics import memory

    assert lowered.forward is not None
    allocator_peak = None
    if lowered.runs_in_torch:
        measure = memory.allocator_peak_cpu if case.device == "cpu" else memory.allocator_peak_cuda
        allocator_peak = measure(lowered.forward)
    reserved = memory.reserved_cuda() if lowered.runs_in_torch and case.device != "cpu" else {}
    return {
        **reserved,
        "allocator_peak_bytes": allocator_peak,
        "process_peak_bytes": memory.process_peak(lowered.forward),
        "weights_bytes": weights_bytes,
    }


def _energy(lowered: lowerings.Lowered, case: Case) -> dict[str, Any]:
    """Energy of further forwards, after all else; where it cannot be told, the reason."""
    from mixprof.metrics import energy, latency

    assert lowered.forward is not None
    try:
        return energy.measure(lowered.forward, case.device, case.batch, latency.stream_of(lowered, case.device))
    except Unavailable as error:
        return {"joules_per_image": None, "reason": str(error)}


def resident(request: dict[str, Any]) -> dict[str, Any]:
    """A case that stays, and takes samples when it is told to."""
    from mixprof.worker.resident import serve

    return serve(lower_case(request), request)


Job = Callable[[dict[str, Any]], dict[str, Any]]


def _by_kind(of_module: Job, of_file: Job) -> Job:
    """A job for models that are modules, and its like for those that are files."""
    return lambda request: (of_module if request["source"]["artifact"] is None else of_file)(request)


JOBS: dict[str, Job] = {
    "environment": environment,
    "describe": describe,
    "inspect": files.inspect,
    "count": _by_kind(count, files.count),
    "derive": derive,
    "operators": operators,
    "peaks": peaks,
    "prepare": _by_kind(prepare, files.prepare),
    "launch": _by_kind(launch, files.launch),
    "resident": resident,
}
