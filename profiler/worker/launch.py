"""One launch of a case: build, lower, check, measure. Modules and files alike."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mixprof import lowerings, metrics, sampling
from mixprof.data.case import ANCHORS, QUANTIZED, STEP, Case, is_simulated
from mixprof.data.choices import Choices
from mixprof.data.errors import Unsupported
from mixprof.data.json import digest
from mixprof.data.launch import Launch, LaunchEnvironment, Samples, Status
from mixprof.lowerings import Target
from mixprof.machine import cpu_contention, cuda_driver, flags, process, testbed, thermal
from mixprof.metrics import Subject, latency
from mixprof.metrics.memory import weights_bytes
from mixprof.metrics.operators import Watch
from mixprof.models import specialization
from mixprof.worker import breakdown, calibration, graphs, layouts, modules, pin, ran, simulated, training
from mixprof.worker.reference import Reference


@dataclass(frozen=True)
class Ready:
    """A subject that is lowered, how long that took, and what its operators are told apart by."""

    subject: Subject
    built_s: float
    watch: Watch | None = None  # of its modules, where its operators are to be timed
    module: torch.nn.Module | None = None  # as it was lowered, where it is one of ours

    @contextlib.contextmanager
    def running(self) -> Any:
        """The mode that its forwards run in; what it holds on the device is free afterwards."""
        entry = lowerings.entry_of(self.subject.case.lowering)
        trains = self.subject.case.step != STEP
        inference = entry.inference_mode and not self.subject.differentiates and not trains
        with torch.inference_mode(inference), torch.set_grad_enabled(trains):
            try:
                yield self.subject
            finally:
                self.subject.lowered.close()


def lower(request: Mapping[str, Any]) -> Ready:
    """Build a case's module or file with the reference's weights and inputs, and lower it."""
    start = time.perf_counter()
    source, case, settings = request["source"], Case.from_json(request["case"]), request["measure"]
    entry, options = lowerings.parse(case.lowering)
    pin.prepare(case, settings["threads"])
    if settings.get("profile"):
        options = {name: value for name, value in options.items() if name != "graph"}  # a graph has no layers
    elif case.model == ANCHORS[1] and "graph" in entry.options and not entry.engine:
        options = {**options, "graph": "on"}
    reference = Reference.read(Path(request["reference"]))
    key = digest([case.to_json(), source["factory"], source["arguments"], testbed.versions()])
    name, cache = case.lowering.split(":")[0], Path(request["cache"])
    target = Target(case.device, case.dtype, case.layout, options, settings["threads"], cache, False, key, name)
    target = calibration.calibrated(target, settings.get("calibration"), reference.inputs, case)
    # no_grad, not inference_mode, while tracing: exporters and inductor's cache refuse inference tensors.
    with torch.no_grad():
        if source["artifact"] is not None:
            subject = _file(request, reference, target, case)
            return Ready(subject, time.perf_counter() - start)
        subject, module = _module(request, reference, target, case)
    declared = source["specialize"] is not None
    watch = Watch(module, declared=declared) if settings.get("profile") and entry.layers == "operators" else None
    return Ready(subject, time.perf_counter() - start, watch, module if declared else None)


def _file(request: Mapping[str, Any], reference: Reference, target: Target, case: Case) -> Subject:
    if is_simulated(case.device):
        raise Unsupported("a file: sim:0 simulates modules alone, of which it sees every operator")
    lowered = graphs.lower(request, reference, replace(target, images=True))
    expected = None if reference.expected is None else [tensor.clone() for tensor in reference.expected]
    bytes_of_weights = None if case.dtype in QUANTIZED else reference.weights_bytes
    return Subject(case, lowered, expected, reference.tolerance, weights_bytes=bytes_of_weights)


def _module(
    request: Mapping[str, Any], reference: Reference, target: Target, case: Case
) -> tuple[Subject, torch.nn.Module]:
    source = request["source"]
    on_meta = source["specialize"] is not None  # registered: built without drawing weights
    built = modules.build(source, case, "meta" if on_meta else "cpu")
    pin.prepare(case, target.threads)  # again: what was imported may have set flags, threads or the current device
    modules.load_state(built.module, reference.state)
    choices = Choices(**request.get("choices") or {})
    module = built.module
    if case.step == STEP:  # training needs its batch norms, and changes what would be computed ahead
        module = modules.specialize(source, module, case.lowering, choices.formulations, case.device)
    module = lowerings.convert(module, process.torch_dtype(case.dtype))
    bytes_of_weights = None if case.dtype in QUANTIZED else weights_bytes(module)  # of which some are bytes then
    target = training.target_of(replace(target, images=built.example.images), case, module, reference.right)
    bound = built.example.bind(module)
    may_fall_back = bool(request.get("layout_is_default"))
    inputs = tuple(reference.inputs)
    if is_simulated(case.device):
        lowered = simulated.lower(case, bound, inputs, target, request.get("noise", ""))
    else:
        lowered = layouts.lower(case, bound, inputs, target, may_fall_back)
    expected = None if reference.expected is None else [tensor.clone() for tensor in reference.expected]
    subject = Subject(
        case, lowered, expected, reference.tolerance, reference.of_ends, _formulations(source, module), bytes_of_weights
    )
    subject = replace(subject, differentiates=reference.differentiates, right=reference.right)
    if may_fall_back and lowered.device is None and "layout" not in lowered.proof and _reads_strides(subject, source):
        lowered = layouts.contiguous(
            case, bound, tuple(reference.inputs), target, "its outputs are wrong in channels_last"
        )
        subject = replace(subject, lowered=lowered)
    noted = {**choices.proof(), **({} if reference.note is None else {"reference": reference.note})}
    if noted:
        subject = replace(subject, lowered=replace(subject.lowered, proof={**subject.lowered.proof, **noted}))
    return subject, module


def _formulations(source: Mapping[str, Any], module: torch.nn.Module) -> tuple[str, ...]:
    """What a lowered module runs: of ours, every formulation that is in it; of another, what it says."""
    if source["specialize"] is not None:
        return tuple(specialization.formulations_in(module))
    return tuple(sorted({str(part.formulation) for part in module.modules() if hasattr(part, "formulation")}))


def _reads_strides(subject: Subject, source: Mapping[str, Any]) -> bool:
    """Whether a user's module computes something else in channels_last than its reference."""
    layouts = lowerings.entry_of(subject.case.lowering).layouts
    if source["specialize"] is not None or not layouts or subject.case.layout == "contiguous":
        return False
    return check(subject).status == "inaccurate"


def launch(request: dict[str, Any]) -> dict[str, Any]:
    """Lower a case, check its output, time it, take its metrics. The fields of a Launch."""
    ready = lower(request)
    subject = ready.subject
    if subject.lowered.forward is None:
        measured = _built(subject)
    else:
        with ready.running():
            if request["measure"].get("profile") and is_simulated(subject.case.device):
                raise Unsupported("layers are not simulated: sim:0 has the time of a whole forward alone")
            if request["measure"].get("profile") and subject.case.step != STEP:
                raise Unsupported("layers are those of a forward in eval mode: use --steps inference")
            if ready.watch is not None:
                measured = breakdown.of_operators(subject.lowered, ready.watch, subject.case.device)
            elif request["measure"].get("profile"):
                measured = breakdown.of_layers(subject.lowered)
            else:
                checked = check(subject)
                measured = checked if checked.status != "ok" else measure(subject, request["measure"], checked)
                if measured.status != "inaccurate":
                    proven = ran.proof(subject, ready.module, request.get("trace"))
                    measured = replace(measured, proof={**(measured.proof or {}), **proven})
    environment = replace(measured.environment, built_s=ready.built_s)
    return replace(measured, environment=environment).to_json()


def _started(subject: Subject, status: Status = "ok", reason: str | None = None) -> Launch:
    lowered = subject.lowered
    return Launch(
        status,
        reason,
        build_s=lowered.build_s,
        build_cached=lowered.build_cached,
        artifact_bytes=lowered.artifact_bytes,
        proof={**lowered.proof, "formulation": list(subject.formulation)},
    )


def _built(subject: Subject) -> Launch:
    """An engine that no device here can run: a graph that was exported here is checked in onnxruntime instead."""
    case, proof = subject.case, subject.lowered.proof
    absent = cuda_driver.no_device()
    why = f" ({absent.reason})" if absent and absent.failed else ""
    if "artifact_sha256" in proof:  # a file is its own definition: nothing here could check it
        is_engine = proof.get("source") == "ready engine"
        words = "a ready engine" if is_engine else "built only"
        started = _started(subject, "built", f"{case.device} is not there{why}: {words}, not run")
        return replace(started, build_s=None if is_engine else started.build_s, proof=proof)
    started = _started(
        subject, "built", f"{case.device} is not there{why}: built only, its graph checked in onnxruntime on the CPU"
    )
    assert started.proof is not None
    try:
        subject, error = calibration.judge(subject)
    except Unsupported as refusal:
        return replace(started, proof={**started.proof, "onnx_relative_error": None, "onnx_unchecked": str(refusal)})
    proof = {**subject.lowered.proof, **started.proof, "onnx_relative_error": None if error == float("inf") else error}
    if error is not None and not error <= subject.tolerance:
        reason = f"relative error of the exported graph: {error:.2g}, expected at most {subject.tolerance:g}"
        return replace(started, status="inaccurate", reason=reason, proof=proof)
    return replace(started, proof=proof)


def check(subject: Subject) -> Launch:
    """The launch so far: "ok" with its error, or "inaccurate"."""
    if subject.lowered.training is not None:
        return training.check(subject, _started(subject))
    subject, error = calibration.judge(subject)
    tolerance = subject.tolerance
    started = replace(_started(subject), relative_error=error if error != float("inf") else None)
    if error is None or error <= tolerance:
        return started
    words = "the output holds NaN or Inf, or has another shape" if error == float("inf") else f"{error:.2g}"
    reason = f"relative error: {words}, expected at most {tolerance:g} in {subject.case.dtype}"
    return replace(started, status="inaccurate", reason=reason)


def _budget(case: Case, settings: Mapping[str, Any]) -> sampling.Budget:
    budget = sampling.budget(case.device, quick=settings["quick"], publication=settings["publication"])
    if settings["seconds"] is None:
        return budget
    cap_samples = min(budget.cap_samples, sampling.STEADY_SAMPLES)
    return replace(budget, cap_s=settings["seconds"], cap_samples=cap_samples)


def _cool(subject: Subject, settings: Mapping[str, Any]) -> float | None:
    """Seconds waited for a GPU to cool down; None where nobody asked for that."""
    headroom = settings.get("thermal_headroom")
    return None if headroom is None else thermal.cool(subject.device, headroom)


def _parts(subject: Subject) -> dict[str, Samples] | None:
    """The times of each part of a whole training step."""
    step = subject.lowered.training if subject.case.step == "train" else None
    return None if step is None else latency.parts(step, subject.device)


def measure(subject: Subject, settings: Mapping[str, Any], checked: Launch) -> Launch:
    """Time a checked subject, then take its metrics."""
    case, start = subject.case, time.perf_counter()
    values = pin.flags_of(case, settings["threads"])
    flags.apply(values)  # once more: a first forward may have imported more
    cooled_s = _cool(subject, settings)
    before, contention = resource.getrusage(resource.RUSAGE_SELF), cpu_contention.read()
    times = latency.measure(subject.lowered, subject.device, case.mode, _budget(case, settings))
    parts = _parts(subject)
    after, contended = resource.getrusage(resource.RUSAGE_SELF), cpu_contention.read()
    taken: dict[str, Any] = {name: metrics.measure(name, subject) for name in metrics.wanted(settings)}
    own = {name: value for name, value in taken.items() if metrics.METRICS[name].own_field}
    changed = pin.changed_flags(values)
    doubted: Status = "throttled" if times.throttled else "unstable" if times.unsteady else "ok"
    return replace(
        checked,
        status="unsupported" if changed else doubted,
        reason=changed or times.throttled or times.unsteady,
        proof={**(checked.proof or {}), "recompiles": times.recompiles},
        gpu_ms=times.gpu_ms,
        enqueue_ms=times.enqueue_ms,
        host_ms=times.host_ms,
        control_ms=times.control_ms,
        queued=times.queued,
        parts=parts,
        **own,
        metrics={name: value for name, value in taken.items() if name not in own},
        environment=LaunchEnvironment(
            page_faults=after.ru_minflt - before.ru_minflt,
            involuntary_switches=after.ru_nivcsw - before.ru_nivcsw,
            dropped_samples=times.dropped,
            clocks=times.clocks,
            flags=flags.read(values) or None,
            measure_s=time.perf_counter() - start,
            lost_cpu_share=cpu_contention.lost_share(contention, contended),
            others_cpus=cpu_contention.others_cpus(contention, contended),
            governor=testbed.governor(),
            cooled_s=cooled_s,
        ),
    )
