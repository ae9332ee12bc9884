"""OpenVINO on an exported graph: the file that every other runtime takes, in static shapes, its tensors bound once.

Without a word OpenVINO computes float32 in bfloat16 where a CPU has that: the dtype decides here, and the proof says
what was read back.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mixprof.data.errors import Unsupported, first_line, is_out_of_memory
from mixprof.lowerings import Lowered, Proof, Target, quantize
from mixprof.lowerings.cold import order
from mixprof.lowerings.onnx_export import OPSET, exported
from mixprof.lowerings.onnx_graph import Graph
from mixprof.lowerings.openvino_proof import PRODUCTS, summarize

PRECISIONS = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
NAMES = {name: dtype for dtype, name in PRECISIONS.items()}


def lower(module: nn.Module, inputs: tuple[Tensor, ...], target: Target) -> Lowered:
    """Export in float32, or take an earlier launch's export, and compile it in the target's precision.

    Options: `hint=latency|throughput`, `streams=`, `precision=f32|bf16|f16`, or `device` for what OpenVINO chooses.
    """
    start = time.perf_counter()
    path, inputs, cached = exported(module, inputs, target, torch.float32)
    lowered = lower_file(path, inputs, target, start)
    return replace(lowered, build_cached=cached, proof={**lowered.proof, "opset": OPSET})


def lower_file(path: Path, inputs: tuple[Tensor, ...], target: Target, start: float | None = None) -> Lowered:
    """Compile an ONNX graph, its inputs in the graph's order and element types. start: when its building began."""
    start = time.perf_counter() if start is None else start
    compiled = _compile(path, target, {})
    request = _bound(compiled, inputs)
    content = path.read_bytes()
    proof = _proof(compiled, content)
    _refuse_float(proof, target.dtype)

    def read_all() -> list[Tensor]:
        _poison(request, compiled)
        _infer(request)
        return [to_torch(request.get_output_tensor(index)) for index in range(len(compiled.outputs))]

    lowered = Lowered(
        lambda: request.infer(share_outputs=True),
        lambda: read_all()[0],
        time.perf_counter() - start,
        artifact_bytes=len(content),
        proof=proof,
        runs_in_torch=False,
        layer_times=lambda forwards: _layer_times(path, inputs, target, forwards),
        read_all=read_all,
        cold=order("openvino", path, inputs, target.threads, _settings(target)),
    )
    return _quantized(lowered, path, inputs, target) if target.dtype == "int8" else lowered


def requested(path: Path, target: Target) -> tuple[Any, Proof]:
    """A request of the graph's model, nothing bound to it, and what the model says of itself."""
    compiled = _compile(path, target, {})
    proof = _proof(compiled, path.read_bytes())
    _refuse_float(proof, target.dtype)
    return compiled.create_infer_request(), proof


def _quantized(lowered: Lowered, path: Path, inputs: tuple[Tensor, ...], target: Target) -> Lowered:
    """Add what is said of int8, and which products of the executed nodes are in integers."""
    fields = quantize.described(lowered, path, inputs)
    layers = [layer for layer in lowered.proof["layers"] if layer["kind"] in PRODUCTS]
    products = {layer["name"]: (layer["kernel"], layer["dtype"] in ("int8", "uint8")) for layer in layers}
    ran = quantize.executed(products, fields["proof"]["kept_in_float"], target.name)
    return replace(lowered, **{**fields, "proof": {**fields["proof"], **ran}})


def _settings(target: Target) -> dict[str, Any]:
    options = target.options
    precision = options.get("precision", PRECISIONS.get(target.dtype, "f32"))
    return {
        "PERFORMANCE_HINT": options.get("hint", "latency").upper(),
        "INFERENCE_NUM_THREADS": target.threads,
        "CPU_DENORMALS_OPTIMIZATION": True,  # as torch and onnxruntime have it here
        **({} if precision == "device" else {"INFERENCE_PRECISION_HINT": precision}),
        **({"NUM_STREAMS": options["streams"]} if "streams" in options else {}),
    }


def _compile(path: Path, target: Target, more: dict[str, Any]) -> Any:
    """Compile the graph at `path`. Unsupported, in OpenVINO's words, where it refuses; and for a precision that its
    device silently exchanges for another."""
    import openvino

    core, settings = openvino.Core(), {**_settings(target), **more}
    try:
        compiled = core.compile_model(core.read_model(str(path)), "CPU", settings)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise Unsupported(f"openvino: {first_line(error)}") from error
    asked, real = settings.get("INFERENCE_PRECISION_HINT"), _precision(compiled)
    if asked is not None and NAMES[asked] != real:
        raise Unsupported(
            f"lowering 'openvino': got precision {asked}, which this CPU would compute in {real}: "
            f"use --dtypes {real}, or the option precision=device"
        )
    streams, given = settings.get("NUM_STREAMS"), compiled.get_property("NUM_STREAMS")
    if streams is not None and int(streams) != given:
        raise Unsupported(
            f"lowering 'openvino': got streams={streams}, of which {target.threads} threads make {given}: "
            "use --threads with at least as many"
        )
    return compiled


def _precision(compiled: Any) -> str:
    """The precision that the device computes in, as torch names it."""
    name = str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string())
    return NAMES.get(name, name)


def _proof(compiled: Any, content: bytes) -> Proof:
    graph = Graph.read(content)
    return {
        "onnx_sha256": hashlib.sha256(content).hexdigest(),
        "layout": "chosen by openvino",
        "precision": _precision(compiled),
        "streams": int(compiled.get_property("NUM_STREAMS")),
        "threads": int(compiled.get_property("INFERENCE_NUM_THREADS")),
        "requests_at_best": int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")),
        **summarize(compiled.get_runtime_model(), graph),
    }


def _refuse_float(proof: Proof, dtype: str) -> None:
    """Unsupported where no product runs in the half precision that the case is named after."""
    dtypes = proof["product_dtypes"]
    if dtype in ("bfloat16", "float16") and dtypes and dtype not in dtypes:
        raise Unsupported(
            f"lowering 'openvino': got {dtype}, and its products all run in {', '.join(dtypes)}: use --dtypes float32"
        )


def _bound(compiled: Any, inputs: tuple[Tensor, ...]) -> Any:
    """An infer request that reads the inputs where they lie."""
    request = compiled.create_infer_request()
    for index, example in enumerate(inputs):
        request.set_input_tensor(index, tensor_of(example))
    request.kept_alive = inputs
    _infer(request)
    return request


def tensor_of(example: Tensor) -> Any:
    """A tensor of OpenVINO's over the memory of torch's."""
    import openvino

    if example.dtype == torch.bfloat16:  # numpy has none
        return openvino.Tensor(example.view(torch.uint16).numpy(), list(example.shape), openvino.Type.bf16)
    return openvino.Tensor(example.numpy(), shared_memory=True)


def _infer(request: Any) -> None:
    try:
        request.infer(share_outputs=True)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise Unsupported(f"openvino: {first_line(error)}") from error


def _poison(request: Any, compiled: Any) -> None:
    """What an earlier run left must not pass for an output."""
    for index, output in enumerate(compiled.outputs):
        if output.partial_shape.is_static:
            array = request.get_output_tensor(index).data
            array[...] = np.nan if array.dtype.kind == "f" else np.iinfo(array.dtype).max if array.dtype != bool else 1


def to_torch(tensor: Any) -> Tensor:
    """A copy of a tensor of OpenVINO's."""
    name = tensor.element_type.to_string()
    array = torch.from_numpy(np.array(tensor.data))
    return array.view(torch.bfloat16).view(list(tensor.shape)) if name == "bf16" else array


def _layer_times(path: Path, inputs: tuple[Tensor, ...], target: Target, forwards: int) -> list[tuple[str, float]]:
    """Mean milliseconds of each executed node over some forwards, by OpenVINO's own profiling."""
    compiled = _compile(path, target, {"PERF_COUNT": True})
    request, total_ms = _bound(compiled, inputs), dict[str, float]()
    for _ in range(forwards):
        request.infer(share_outputs=True)
        for node in request.profiling_info:
            total_ms[node.node_name] = total_ms.get(node.node_name, 0.0) + node.real_time.total_seconds() * 1e3
    return [(name, ms / forwards) for name, ms in total_ms.items() if ms]
