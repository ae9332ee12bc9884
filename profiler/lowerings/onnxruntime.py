"""ONNX Runtime on an exported graph: opset 20, static shapes, buffers bound once."""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixprof.data.errors import Unavailable, Unsupported, first_line, is_out_of_memory, root_cause
from mixprof.lowerings import Lowered, Target, cast, convert
from mixprof.lowerings.onnx_graph import TYPES as ELEMENT_TYPES
from mixprof.machine.process import torch_dtype

OPSET = 20
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
CODES: dict[torch.dtype, int] = {getattr(torch, name): code for code, name in ELEMENT_TYPES.items()}
NAMES = {torch.float32: "float", torch.float64: "double"}  # where onnxruntime's differ from torch's
TYPES = {f"tensor({NAMES.get(dtype, str(dtype).removeprefix('torch.'))})": dtype for dtype in CODES}
LEVELS = {"disable": "ORT_DISABLE_ALL", "basic": "ORT_ENABLE_BASIC", "extended": "ORT_ENABLE_EXTENDED"}


def export(
    module: nn.Module, inputs: tuple[Tensor, ...], path: Path, dynamic: tuple[dict[int, Any], ...] | None = None
) -> None:
    """Write an ONNX graph of the module at `path`, whole or not at all. Unsupported when it cannot be exported.

    dynamic: which axes of each input vary. Source lines are left out, so that equal graphs are equal files.
    """
    temporary = path.with_name(f"{os.getpid()}.{path.name}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module, inputs, dynamo=True, opset_version=OPSET, verbose=False, dynamic_shapes=dynamic
            )
        assert program is not None
        for node in program.model.graph:
            node.metadata_props.pop("pkg.torch.onnx.stack_trace", None)
        program.save(str(temporary), external_data=False)
    except (torch.onnx.errors.OnnxExporterError, RuntimeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        raise Unsupported(f"torch.onnx.export: {first_line(root_cause(error))}") from error
    os.replace(temporary, path)


def lower(module: nn.Module, inputs: tuple[Tensor, ...], target: Target) -> Lowered:
    """Export, or take this run's export of an earlier launch, and load it. Option `opt=` bounds graph optimisation."""
    start = time.perf_counter()
    dtype = torch_dtype(target.dtype)
    inputs = tuple(cast(x, dtype).contiguous() for x in inputs)
    path = target.cache / f"{target.key}.onnx"
    cached = path.exists()
    if not cached:
        export(convert(module, dtype), inputs, path)
    lowered = lower_file(path, inputs, target, start)
    return replace(lowered, build_cached=cached, proof={**lowered.proof, "opset": OPSET})


def lower_file(path: Path, inputs: tuple[Tensor, ...], target: Target, start: float | None = None) -> Lowered:
    """Load an ONNX graph, its inputs in the graph's order and element types. start: when its building began."""
    start = time.perf_counter() if start is None else start
    session = _session(path, target)
    binding, buffers = _bind(session, inputs, target)
    proof = {
        "onnx_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "provider": session.get_providers()[0],
        "layout": "chosen by onnxruntime",
    }
    settings = _run_options(target)

    def run() -> None:
        session.run_with_iobinding(binding, settings)

    def read_all() -> list[Tensor]:
        _poison(buffers)
        run()
        return _fetch(binding, buffers)

    return Lowered(
        run,
        lambda: read_all()[0],
        time.perf_counter() - start,
        artifact_bytes=path.stat().st_size,
        proof=proof,
        runs_in_torch=False,
        read_all=read_all,
    )


def _session(path: Path, target: Target) -> Any:
    kind = target.device.split(":")[0]
    level = target.options.get("opt", "all")
    if kind == "cpu":
        return session_of(path, "cpu", target.threads, level)
    settings = {
        "device_id": target.device.split(":")[1],
        "user_compute_stream": str(torch.cuda.current_stream().cuda_stream),
        "use_tf32": str(int(target.dtype == "tf32")),
    }
    return session_of(path, kind, target.threads, level, settings)


def session_of(path: Path, kind: str, threads: int, level: str = "all", settings: dict[str, str] | None = None) -> Any:
    """A session of the graph at `path` on "cpu" or "cuda". Unsupported, in its own words, where it refuses it."""
    import onnxruntime

    if PROVIDERS[kind] not in onnxruntime.get_available_providers():
        raise Unavailable(f"lowering 'onnxruntime' on {kind}: pip install onnxruntime-gpu")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, LEVELS.get(level, "ORT_ENABLE_ALL"))
    provider: Any = (PROVIDERS[kind], settings) if settings else PROVIDERS[kind]
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # onnxruntime raises classes of its own, one for each status code
        if is_out_of_memory(error):
            raise
        raise Unsupported(f"onnxruntime: {first_line(error)}") from error
    if session.get_providers()[0] != PROVIDERS[kind]:
        raise Unavailable(f"lowering 'onnxruntime' on {kind}: {PROVIDERS[kind]} does not load on this machine")
    return session


def _run_options(target: Target) -> Any:
    """On CUDA a run returns when its work is enqueued, like every other lowering's forward."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    if target.device != "cpu":
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    return options


def _bind(session: Any, inputs: tuple[Tensor, ...], target: Target) -> tuple[Any, list[Tensor | None]]:
    """Bind the inputs and freshly allocated outputs, torch tensors on the device, for all runs.

    None stands for an output whose shape depends on values: onnxruntime allocates it anew in every run.
    """
    binding = session.io_binding()
    kind, _, index = target.device.partition(":")
    keep = [example.to(target.device) for example in inputs]
    outputs = [_buffer(node, target.device) for node in session.get_outputs()]
    for bind, nodes, tensors in (
        (binding.bind_input, session.get_inputs(), keep),
        (binding.bind_output, session.get_outputs(), outputs),
    ):
        for node, tensor in zip(nodes, tensors, strict=True):
            if tensor is None:
                bind(node.name, kind, int(index or 0))
            else:
                code = CODES[tensor.dtype]
                bind(node.name, kind, int(index or 0), code, tuple(tensor.shape), tensor.data_ptr())
    binding.kept_alive = keep
    return binding, outputs


def _poison(buffers: list[Tensor | None]) -> None:
    """What an earlier run left must not pass for an output."""
    for buffer in buffers:
        if buffer is not None and buffer.is_floating_point():
            buffer.fill_(float("nan"))
        elif buffer is not None:
            buffer.fill_(True if buffer.dtype == torch.bool else torch.iinfo(buffer.dtype).max)


def _fetch(binding: Any, buffers: list[Tensor | None]) -> list[Tensor]:
    """Every output, on the CPU: from its buffer, or from where onnxruntime allocated it."""
    if all(buffer is not None for buffer in buffers):
        return [buffer.cpu() for buffer in buffers if buffer is not None]
    binding.synchronize_outputs()
    values = binding.get_outputs()
    return [
        torch.from_numpy(values[index].numpy()) if buffer is None else buffer.cpu()
        for index, buffer in enumerate(buffers)
    ]


def _buffer(node: Any, device: str) -> Tensor | None:
    dtype = TYPES.get(node.type)
    if dtype is None:
        raise Unsupported(f"onnxruntime: got output '{node.name}' of type {node.type}, expected a tensor of numbers")
    if not all(isinstance(size, int) for size in node.shape):
        return None
    return torch.empty(tuple(node.shape), dtype=dtype, device=device)
