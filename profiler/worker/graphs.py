"""Files as models: an ONNX graph at the case's shapes, or a ready engine, with the arrays that it is fed."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixprof import lowerings
from mixprof.data.case import Case
from mixprof.data.errors import Unsupported, is_out_of_memory, one_line
from mixprof.data.json import decode, digest
from mixprof.lowerings import Lowered, Target, onnx_files, onnx_graph, onnx_weights
from mixprof.metrics import accuracy
from mixprof.plan.files import UNKNOWN, Artifact, Input, shapes_of
from mixprof.worker import inputs
from mixprof.worker.reference import Reference

NO_COUNT = "what an engine computes cannot be read from it: count the ONNX file that it was built from"
NO_REFERENCE = "a ready engine comes without the graph that would say what is right"
Shapes = Mapping[str, tuple[int, ...]]


def inspect(request: dict[str, Any]) -> dict[str, Any]:
    """Hash, element type and inputs of a file, and of the .npz that feeds it."""
    path = Path(request["path"])
    dtype, declared = None, None
    if path.suffix == ".onnx":
        model, sha256 = onnx_files.read(path)
        dtype, declared = onnx_weights.own_dtype(model, path), onnx_graph.inputs_of(model, path)
    else:
        sha256 = hashlib.sha256(onnx_files.read_bytes(path)).hexdigest()
    listed, inputs_sha256 = _inspect_inputs(request["inputs"], declared)
    described = [asdict(one) for one in listed]
    return {"status": "ok", "sha256": sha256, "dtype": dtype, "inputs": described, "inputs_sha256": inputs_sha256}


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
    wanted = dict.fromkeys(arrays) if declared is None else {name: one[0] for name, one in declared.items()}
    inputs.check(Path(archive), arrays, wanted)
    names = declared or {name: (array.dtype.name, tuple(array.shape)) for name, array in arrays.items()}
    values = f"from {archive}"
    return [Input(name, dtype, sizes, arrays[name].shape, values) for name, (dtype, sizes) in names.items()], sha256


def _case(request: Mapping[str, Any]) -> tuple[Artifact, Case, Shapes]:
    """The file, the case and the shape of each input in it."""
    artifact, case = decode(request["source"]["artifact"], Artifact), Case.from_json(request["case"])
    return artifact, case, shapes_of(artifact, case.batch, case.resolution)


def _pinned(artifact: Artifact, shapes: Shapes) -> Any:
    model, sha256 = onnx_files.read(Path(artifact.path))
    _refuse_changed(artifact.path, artifact.sha256, sha256)
    return onnx_graph.pinned(model, shapes)


def _refuse_changed(path: str, before: str | None, now: str) -> None:
    if before != now:
        raise Unsupported(f"{path} was changed after this began: begin anew with the file as it is now")


def count(request: dict[str, Any]) -> dict[str, Any]:
    """Count a graph's parameters and MACs at the case's shapes. Eager PyTorch's memory for it is not known.

    Where shapes depend on values, or onnxruntime's own operators make them, the graph is run once on the case's inputs.
    """
    from mixprof.metrics import onnx_macs

    artifact, case, shapes = _case(request)
    if artifact.is_engine:
        raise Unsupported(f"{artifact.path}: {NO_COUNT}")
    model = _pinned(artifact, shapes)
    counts = onnx_macs.count(model, partial(_run, request, artifact, _feeds(artifact, case, shapes)))
    return {
        "status": "ok",
        "params": onnx_weights.parameters(model),
        "macs": counts.macs,
        "flops": counts.flops,
        "macs_by_op": counts.macs_by_op,
        "uncounted_ops": list(counts.uncounted_ops),
        "predicted_peak_bytes": None,
        "weights_bytes": onnx_weights.weights_bytes(model),
        "input_bytes": sum(prod(shapes[one.name]) * getattr(torch, one.dtype).itemsize for one in artifact.inputs),
    }


def _run(request: Mapping[str, Any], artifact: Artifact, fed: Mapping[str, Tensor], model: Any) -> Any:
    """Every output of a graph by its name, of one run in onnxruntime; None where it does not run."""
    from mixprof.lowerings import onnxruntime

    with tempfile.TemporaryDirectory(prefix="mixprof-") as folder:
        path = Path(folder) / "probed.onnx"
        onnx_files.write(model, path, Path(artifact.path), artifact.sha256)
        options = {"opt": "disable"}
        target = Target(
            "cpu", "float32", "contiguous", options, request["threads"], path.parent, True, "", "onnxruntime"
        )
        try:
            lowered = onnxruntime.lower_file(path, tuple(fed.values()), target)
            outputs = lowered.outputs()
        except Exception as error:  # onnxruntime raises classes of its own, one for each status code
            if is_out_of_memory(error):
                raise
            return None
    return {value.name: tensor.numpy() for value, tensor in zip(model.graph.output, outputs, strict=True)}


def prepare(request: dict[str, Any]) -> dict[str, Any]:
    """Write the graph at the case's shapes, and its reference beside it: onnxruntime's without optimisation."""
    artifact, case, shapes = _case(request)
    torch.set_num_threads(request["threads"])
    path = Path(request["reference"])
    fed = _feeds(artifact, case, shapes)
    reference = Reference({}, list(fed.values()), None, accuracy.TOLERANCES[case.dtype], NO_REFERENCE)
    if not artifact.is_engine:
        model = _pinned(artifact, shapes)
        onnx_files.write(model, path.with_suffix(".onnx"), Path(artifact.path), artifact.sha256)
        reference = replace(reference, weights_bytes=onnx_weights.weights_bytes(model))
        reference = _reference(reference, artifact, path, request["threads"])
        floats = [tensor for tensor in reference.expected or [] if tensor.is_floating_point()]
        if not all(bool(torch.isfinite(tensor).all()) for tensor in floats):
            return {"status": "inaccurate", "reason": "the reference itself holds NaN or Inf: try other --inputs"}
    reference.write(path)
    return {"status": "ok"}


def _feeds(artifact: Artifact, case: Case, shapes: Shapes) -> dict[str, Tensor]:
    """A tensor for each input, by name; none for an engine whose element types nobody knows yet."""
    if artifact.inputs_file is not None:
        arrays, sha256 = inputs.read(Path(artifact.inputs_file))
        _refuse_changed(artifact.inputs_file, artifact.inputs_sha256, sha256)
        return {one.name: torch.from_numpy(arrays[one.name].copy("C")) for one in artifact.inputs}
    generator = torch.Generator().manual_seed(_seed(artifact, case))
    known = [one for one in artifact.inputs if one.dtype != UNKNOWN]
    return {one.name: inputs.random(one.dtype, shapes[one.name], generator) for one in known}


def _seed(artifact: Artifact, case: Case) -> int:
    return int(digest([artifact.sha256, case.batch, case.resolution]), 16) % 2**63


def _reference(reference: Reference, artifact: Artifact, path: Path, threads: int) -> Reference:
    """Add what onnxruntime returns with its graph optimisation off; the reason where it refuses the graph."""
    from mixprof.lowerings import onnxruntime

    assert artifact.dtype is not None
    options = {"opt": "disable"}
    target = Target("cpu", artifact.dtype, "contiguous", options, threads, path.parent, True, "", "onnxruntime")
    try:
        lowered = onnxruntime.lower_file(path.with_suffix(".onnx"), tuple(reference.inputs), target)
        expected = lowered.outputs()
    except Unsupported as error:
        return replace(reference, note=str(error))
    except Exception as error:  # onnxruntime raises classes of its own, one for each status code
        if is_out_of_memory(error):
            raise
        reason = f"onnxruntime does not run {artifact.path} on these inputs ({one_line(error)})"
        raise Unsupported(f"{reason}: give others with --inputs") from error
    note = f"onnxruntime on the CPU, graph optimisation disabled, {artifact.dtype}"
    return replace(reference, expected=expected, note=note)


def lower(request: Mapping[str, Any], reference: Reference, target: Target) -> Lowered:
    """Lower a file for a target, with what a record says of it in the proof."""
    artifact, case, shapes = _case(request)
    path = Path(request["reference"])
    if artifact.is_engine:
        lowered = _lower_engine(artifact, case, (dict(zip(shapes, reference.inputs, strict=False)), shapes), target)
    else:
        lowered = lowerings.lower_file(case.lowering, path.with_suffix(".onnx"), tuple(reference.inputs), target)
    return replace(lowered, proof={**lowered.proof, **_proof(artifact, shapes, reference, lowered.forward is None)})


def without_metadata(content: bytes) -> bytes:
    """The engine itself where a JSON object and its length, 4 bytes, little-endian, stand before it: Ultralytics'."""
    length = int.from_bytes(content[:4], "little")
    header = content[4 : 4 + length]
    if not header.startswith(b"{") or len(content) <= 4 + length:
        return content
    try:
        json.loads(header)
    except ValueError:
        return content
    return content[4 + length :]


def _lower_engine(artifact: Artifact, case: Case, fed: tuple[Mapping[str, Tensor], Shapes], target: Target) -> Lowered:
    from mixprof.lowerings.tensorrt import lower as tensorrt

    content = onnx_files.read_bytes(Path(artifact.path))
    _refuse_changed(artifact.path, artifact.sha256, hashlib.sha256(content).hexdigest())
    content = without_metadata(content)
    generator = torch.Generator().manual_seed(_seed(artifact, case))
    tensors, shapes = fed

    def feed(name: str, dtype: str) -> Tensor:
        """An input's tensor, once the engine has told its element type."""
        if name not in tensors:
            return inputs.random(dtype, shapes[name], generator)
        if str(tensors[name].dtype) != f"torch.{dtype}":
            raise Unsupported(f"got {tensors[name].dtype} for input '{name}', and the engine takes {dtype}")
        return tensors[name]

    return tensorrt.lower_engine(Path(artifact.path).resolve(), content, shapes, feed, target)


def _proof(artifact: Artifact, shapes: Shapes, reference: Reference, built_only: bool) -> dict[str, Any]:
    """A record's words on a file, its inputs and its reference."""
    listed = {
        one.name: {"shape": list(shapes[one.name]), "dtype": one.dtype, "values": one.values or "random"}
        for one in artifact.inputs
    }
    known = reference.expected is not None
    reason = None if known else reference.note
    return {
        "artifact_sha256": artifact.sha256,
        "inputs": listed,
        "reference": reference.note if known else None,
        "reference_reason": "nothing was run here to be compared with it" if known and built_only else reason,
    }
