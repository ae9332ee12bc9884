"""What worker processes do with a file: inspect it, count it, prepare inputs and reference, launch it."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixprof import lowerings
from mixprof.data.errors import Unsupported
from mixprof.data.types import Case, Launch, digest
from mixprof.lowerings import onnx_graph
from mixprof.machine import device
from mixprof.plan.files import UNKNOWN, Artifact, Input, shapes_of
from mixprof.worker import inputs

if TYPE_CHECKING:
    import torch

NO_COUNT = "what an engine computes cannot be read from it: count the ONNX file that it was built from"
NO_REFERENCE = "a ready engine comes without the graph that would say what is right"


def inspect(request: dict[str, Any]) -> dict[str, Any]:
    """Hash, element type and inputs of a file, and of the .npz that feeds it."""
    path = Path(request["path"])
    if path.suffix == ".plan":
        sha256, dtype = hashlib.sha256(onnx_graph.read_bytes(path)).hexdigest(), None
        declared: dict[str, tuple[str, tuple[Any, ...]]] | None = None
    else:
        model, sha256 = onnx_graph.read(path)
        dtype, declared = onnx_graph.own_dtype(model, path), onnx_graph.inputs_of(model, path)
    found, inputs_sha256 = _inspect_inputs(request["inputs"], declared)
    listed = [asdict(each) for each in found]
    return {"status": "ok", "sha256": sha256, "dtype": dtype, "inputs": listed, "inputs_sha256": inputs_sha256}


def _inspect_inputs(
    archive: str | None, declared: Mapping[str, tuple[str, tuple[Any, ...]]] | None
) -> tuple[list[Input], str | None]:
    """The inputs of a file (declared: name -> element type and sizes; None for an engine) with an archive's shapes."""
    if archive is None:
        known = (declared or {}).items()
        return [
            Input(name, dtype, sizes, None, inputs.words(dtype, len(sizes))) for name, (dtype, sizes) in known
        ], None
    arrays, sha256 = inputs.read(Path(archive))
    wanted = dict.fromkeys(arrays) if declared is None else {name: each[0] for name, each in declared.items()}
    inputs.check(Path(archive), arrays, wanted)
    names = declared or {name: (each.dtype.name, tuple(each.shape)) for name, each in arrays.items()}
    said = f"from {archive}"
    return [Input(name, dtype, sizes, arrays[name].shape, said) for name, (dtype, sizes) in names.items()], sha256


def _case(request: dict[str, Any]) -> tuple[Artifact, Case, dict[str, tuple[int, ...]]]:
    """The file, the case and the shape of each input in it."""
    artifact, case = Artifact.from_json(request["source"]["artifact"]), Case.from_json(request["case"])
    return artifact, case, shapes_of(artifact, case.batch, case.resolution)


def _pinned(artifact: Artifact, shapes: Mapping[str, tuple[int, ...]]) -> Any:
    model, sha256 = onnx_graph.read(Path(artifact.path))
    _refuse_changed(artifact.path, artifact.sha256, sha256)
    return onnx_graph.pinned(model, shapes)


def _refuse_changed(path: str, before: str | None, now: str) -> None:
    if before != now:
        raise Unsupported(f"{path} was changed after this began: begin anew with the file as it is now")


def count(request: dict[str, Any]) -> dict[str, Any]:
    """Parameters and MACs of a graph at the case's shapes. What eager PyTorch would take of memory is not known."""
    from mixprof.metrics import onnx_macs

    artifact, _, shapes = _case(request)
    if artifact.is_engine:
        return {"status": "unsupported", "reason": f"{artifact.path}: {NO_COUNT}"}
    model = _pinned(artifact, shapes)
    counts = onnx_macs.count(model)
    return {
        "status": "ok",
        "params": sum(onnx_graph.float_elements(model).values()),
        "macs": counts.macs,
        "flops": counts.flops,
        "macs_by_op": counts.macs_by_op,
        "uncounted_ops": list(counts.uncounted_ops),
        "predicted_peak_bytes": None,
        "weights_bytes": onnx_graph.weights_bytes(model),
        "input_bytes": sum(prod(shapes[each.name]) * _element_bytes(each.dtype) for each in artifact.inputs),
    }


def _element_bytes(dtype: str) -> int:
    import torch

    size: int = getattr(torch, dtype).itemsize
    return size


def prepare(request: dict[str, Any]) -> dict[str, Any]:
    """The graph at the case's shapes, its inputs and what it should return, in two files; for an engine, its inputs."""
    import torch

    artifact, case, shapes = _case(request)
    torch.set_num_threads(request["threads"])
    fed = _feeds(artifact, case, shapes)
    saved: dict[str, Any] = {"inputs": fed, "expected": None, "reference": None, "why": NO_REFERENCE}
    path = Path(request["reference"])
    if not artifact.is_engine:
        model = _pinned(artifact, shapes)
        _write(path.with_suffix(".onnx"), model.SerializeToString(deterministic=True))
        saved |= _reference(artifact, fed, path, request["threads"])
        saved["weights_bytes"] = onnx_graph.weights_bytes(model)
        floats = [each for each in saved["expected"] or [] if each.is_floating_point()]
        if not all(bool(torch.isfinite(each).all()) for each in floats):
            return {"status": "inaccurate", "reason": "the reference itself holds NaN or Inf: try other --inputs"}
    temporary = path.with_name(path.name + ".tmp")
    torch.save(saved, temporary)
    os.replace(temporary, path)
    return {"status": "ok"}


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def _feeds(artifact: Artifact, case: Case, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """A tensor for each input, by name; none for an engine whose element types nobody knows yet."""
    import torch

    if artifact.inputs_file is not None:
        arrays, sha256 = inputs.read(Path(artifact.inputs_file))
        _refuse_changed(artifact.inputs_file, artifact.inputs_sha256, sha256)
        return {each.name: torch.from_numpy(arrays[each.name].copy("C")) for each in artifact.inputs}
    generator = torch.Generator().manual_seed(_seed(artifact, case))
    known = [each for each in artifact.inputs if each.dtype != UNKNOWN]
    return {each.name: inputs.random(each.dtype, shapes[each.name], generator) for each in known}


def _seed(artifact: Artifact, case: Case) -> int:
    return int(digest([artifact.sha256, case.batch, case.resolution]), 16) % 2**63


def _reference(artifact: Artifact, fed: Mapping[str, torch.Tensor], path: Path, threads: int) -> dict[str, Any]:
    """What onnxruntime returns with its graph optimisation off; the reason where it refuses the graph."""
    from mixprof.data.errors import is_out_of_memory, one_line
    from mixprof.lowerings import onnxruntime

    assert artifact.dtype is not None
    target = _target("cpu", artifact.dtype, {"opt": "disable"}, threads, path.parent, "onnxruntime")
    try:
        lowered = onnxruntime.lower_file(path.with_suffix(".onnx"), tuple(fed.values()), target)
        assert lowered.read_all is not None
        expected = lowered.read_all()
    except Unsupported as error:
        return {"why": str(error)}
    except Exception as error:  # onnxruntime raises classes of its own, one for each status code
        if is_out_of_memory(error):
            raise
        said = f"onnxruntime does not run {artifact.path} on these inputs ({one_line(error)})"
        raise Unsupported(f"{said}: give others with --inputs") from error
    said = f"onnxruntime on the CPU, graph optimisation disabled, {artifact.dtype}"
    return {"expected": expected, "reference": said, "why": None}


def _target(
    device: str, dtype: str, options: dict[str, str], threads: int, cache: Path, name: str, key: str = ""
) -> lowerings.Target:
    return lowerings.Target(device, dtype, "contiguous", options, threads, cache, True, key, name)


def launch(request: dict[str, Any]) -> dict[str, Any]:
    """One launch of a file: like that of a module, with the graph's own reference, or none for an engine."""
    import torch

    from mixprof.worker import jobs

    start = time.perf_counter()
    artifact, case, shapes = _case(request)
    settings = request["measure"]
    entry, options = lowerings.parse(case.lowering)
    if entry.engine:
        device.prepare_cpu(settings["threads"])
    else:
        device.prepare(case.device, case.dtype, settings["threads"])
    path = Path(request["reference"])
    saved = torch.load(path, weights_only=True, mmap=True)
    name = case.lowering.split(":")[0]
    target = _target(case.device, case.dtype, options, settings["threads"], Path(request["cache"]), name)
    if artifact.is_engine:
        lowered = _lower_engine(artifact, case, saved["inputs"], shapes, target)
    else:
        lowered = lowerings.lower_file(
            case.lowering, path.with_suffix(".onnx"), tuple(saved["inputs"].values()), target
        )
    lowered = replace(lowered, proof={**lowered.proof, **_proof(artifact, shapes, saved)})
    expected = None if saved["expected"] is None else [each.clone() for each in saved["expected"]]
    weights_bytes = saved.get("weights_bytes")
    del saved
    built_s = time.perf_counter() - start
    if lowered.forward is None:
        return {**_built(lowered, artifact, case), "environment": {"built_s": built_s}}
    with torch.no_grad():
        try:
            if settings.get("profile"):
                found = jobs.layer_times(lowered)
            else:
                found = jobs.measure(lowered, case, settings, expected, [], weights_bytes)
        finally:
            lowered.close()
    return {**found, "environment": {**found["environment"], "built_s": built_s}}


def _lower_engine(
    artifact: Artifact,
    case: Case,
    fed: Mapping[str, torch.Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    target: lowerings.Target,
) -> lowerings.Lowered:
    import torch

    from mixprof.lowerings.tensorrt.lower import lower_engine

    content = onnx_graph.read_bytes(Path(artifact.path))
    _refuse_changed(artifact.path, artifact.sha256, hashlib.sha256(content).hexdigest())
    generator = torch.Generator().manual_seed(_seed(artifact, case))

    def feed(name: str, dtype: str) -> torch.Tensor:
        """What an input holds, once the engine has told its element type."""
        if name not in fed:
            return inputs.random(dtype, shapes[name], generator)
        if str(fed[name].dtype) != f"torch.{dtype}":
            raise Unsupported(f"got {fed[name].dtype} for input '{name}', and the engine takes {dtype}")
        return fed[name]

    return lower_engine(Path(artifact.path).resolve(), content, shapes, feed, target)


def _proof(artifact: Artifact, shapes: Mapping[str, tuple[int, ...]], saved: Mapping[str, Any]) -> dict[str, Any]:
    """What a record says of a file, its inputs and its reference."""
    values = {each.name: each.values or "random" for each in artifact.inputs}
    listed = {
        each.name: {"shape": list(shapes[each.name]), "dtype": each.dtype, "values": values[each.name]}
        for each in artifact.inputs
    }
    return {
        "artifact_sha256": artifact.sha256,
        "inputs": listed,
        "reference": saved["reference"],
        "reference_reason": saved["why"],
    }


def _built(lowered: lowerings.Lowered, artifact: Artifact, case: Case) -> dict[str, Any]:
    """A file that no device here can run. Its graph is its own definition, so nothing here could check it."""
    said = "a ready engine, not run" if artifact.is_engine else "built only, not run"
    proof = lowered.proof
    if proof["reference"] is not None:
        proof = {**proof, "reference_reason": "nothing was run here to be compared with it"}
    return Launch(
        "built",
        f"{case.device} is not there: {said}",
        build_s=None if artifact.is_engine else lowered.build_s,
        build_cached=lowered.build_cached,
        artifact_bytes=lowered.artifact_bytes,
        proof=proof,
    ).to_json()
