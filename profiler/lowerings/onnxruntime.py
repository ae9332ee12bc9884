"""ONNX Runtime on an exported graph: opset 20, static shapes, buffers bound once."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixprof.data import cache
from mixprof.data.errors import Unavailable, Unsupported, first_line, is_out_of_memory
from mixprof.lowerings import Lowered, Proof, Target, quantize
from mixprof.lowerings.cold import Cold, order
from mixprof.lowerings.onnx_export import OPSET, exported
from mixprof.lowerings.onnx_graph import TYPES as ELEMENT_TYPES
from mixprof.machine.process import torch_dtype

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",  # never run
    "openvino": "OpenVINOExecutionProvider",
}
DEVICES = {"tensorrt": "cuda", "openvino": "cpu"}  # of providers that are asked for by name
PRECISIONS = {"float32": "FP32", "float16": "FP16"}  # of OpenVINO's
CODES: dict[torch.dtype, int] = {getattr(torch, name): code for code, name in ELEMENT_TYPES.items()}
NAMES = {torch.float32: "float", torch.float64: "double"}  # where onnxruntime's differ from torch's
TYPES = {f"tensor({NAMES.get(dtype, str(dtype).removeprefix('torch.'))})": dtype for dtype in CODES}
# Both packages are the module `onnxruntime`: the one installed last overwrites the other.
OF_GPU = "pip uninstall onnxruntime, then pip install 'mixprof[onnxruntime-gpu]'"
INSTALL = {
    "cuda": OF_GPU,
    "tensorrt": f"{OF_GPU}, and pip install 'mixprof[tensorrt]'",
    "openvino": "pip install onnxruntime-openvino, in an environment without onnxruntime, which is the same module",
}
LEVELS = {"disable": "ORT_DISABLE_ALL", "basic": "ORT_ENABLE_BASIC", "extended": "ORT_ENABLE_EXTENDED"}


def lower(module: nn.Module, inputs: tuple[Tensor, ...], target: Target) -> Lowered:
    """Export, or take this run's export of an earlier launch, and load it. Option `opt=` bounds graph optimisation."""
    start = time.perf_counter()
    path, inputs, cached = exported(module, inputs, target, torch_dtype(target.dtype))
    lowered = lower_file(path, inputs, target, start)
    return replace(lowered, build_cached=cached, proof={**lowered.proof, "opset": OPSET})


def lower_file(path: Path, inputs: tuple[Tensor, ...], target: Target, start: float | None = None) -> Lowered:
    """Load an ONNX graph, its inputs in the graph's order and element types. start: when its building began."""
    start = time.perf_counter() if start is None else start
    if target.dtype == "int8" and target.device != "cpu":
        raise Unsupported(f"lowering 'onnxruntime': got int8 on {target.device}, expected cpu: use tensorrt there")
    session = session_for(path, target)
    proof = {
        "onnx_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "provider": session.get_providers()[0],
        "layout": "chosen by onnxruntime",
        **({} if _kind(target) == "cpu" else _assigned(session)),
    }
    lowered = bound(session, inputs, target, proof=proof, artifact_bytes=path.stat().st_size)
    lowered = replace(lowered, build_s=time.perf_counter() - start, cold=_cold(path, inputs, target))
    if target.dtype != "int8":
        return lowered
    lowered = quantize.with_definition(lowered, path, inputs)
    return replace(lowered, proof={**lowered.proof, **integers(path, target)})


def bound(session: Any, inputs: tuple[Tensor, ...], target: Target, **details: Any) -> Lowered:
    """A session with its inputs and outputs bound. details: further fields of the lowering."""
    binding, buffers = _bind(session, inputs, target)
    settings = _run_options(target)

    def run() -> None:
        session.run_with_iobinding(binding, settings)

    def read_all() -> list[Tensor]:
        _poison(buffers)
        run()
        return _fetch(binding, buffers)

    return Lowered(run, lambda: read_all()[0], 0.0, runs_in_torch=False, read_all=read_all, **details)


def integers(path: Path, target: Target) -> Proof:
    """Which products of a quantized graph's executed form are in integers. Unsupported where none is."""
    level = LEVELS.get(target.options.get("opt", "all"), "ORT_ENABLE_ALL")
    return quantize.executed(quantize.in_onnxruntime(path, level), quantize.kept_in_float(path), target.name)


def _cold(path: Path, inputs: tuple[Tensor, ...], target: Target) -> Cold | None:
    """How a process deploys the graph on the CPU; None on a GPU, and for what numpy does not have."""
    if _kind(target) != "cpu" or any(x.dtype == torch.bfloat16 for x in inputs):
        return None
    level = LEVELS.get(target.options.get("opt", "all"), "ORT_ENABLE_ALL")
    return order("onnxruntime", path, inputs, target.threads, {"level": level})


def _kind(target: Target) -> str:
    """The provider, by its short name: the one asked for, or the device's own."""
    return target.options.get("provider") or target.device.split(":")[0]


def session_for(path: Path, target: Target) -> Any:
    """The session that a target asks for."""
    kind, level = _kind(target), target.options.get("opt", "all")
    _refuse_absent(kind)
    if (device := DEVICES.get(kind, target.device.split(":")[0])) != target.device.split(":")[0]:
        usual = "cpu" if device == "cpu" else "cuda:0"
        raise Unsupported(f"'onnxruntime:provider={kind}': got {target.device}, expected {device}: --devices {usual}")
    if kind in DEVICES and target.dtype not in PRECISIONS:
        raise Unsupported(
            f"'onnxruntime:provider={kind}': got {target.dtype}, expected float32 or float16, which it is told"
        )
    if kind == "cpu":
        return session_of(path, "cpu", target.threads, level)
    if kind == "openvino":
        told = {"device_type": "CPU", "precision": PRECISIONS[target.dtype], "num_of_threads": str(target.threads)}
        return session_of(path, kind, target.threads, level, told, falls_back=True)
    settings = {
        "device_id": target.device.split(":")[1],
        "user_compute_stream": str(torch.cuda.current_stream().cuda_stream),
        "use_tf32": str(int(target.dtype == "tf32")),
    }
    if kind == "tensorrt":
        del settings["use_tf32"]
        folder = str(cache.own_folder(cache.own_folder(cache.folder()) / "onnxruntime-tensorrt"))
        settings |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": folder}
    return session_of(path, kind, target.threads, level, settings, falls_back="fallback" in target.options)


def _refuse_absent(kind: str) -> str:
    """The provider's own name; Unavailable where this build of onnxruntime has it not."""
    import onnxruntime

    provider = PROVIDERS[kind]
    if provider not in onnxruntime.get_available_providers():
        raise Unavailable(f"lowering 'onnxruntime' on {kind}: this build has no {provider}: {INSTALL[kind]}")
    return provider


def session_of(
    path: Path, kind: str, threads: int, level: str = "all", settings: dict[str, str] | None = None,
    *, falls_back: bool = False,
) -> Any:  # fmt: skip
    """A session of the graph at `path` by a provider of PROVIDERS. Unsupported, in its own words, where it refuses it.

    falls_back: nodes that the device has no kernel for may run on the CPU, with copies there and back.
    """
    import onnxruntime

    provider = _refuse_absent(kind)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4 if kind == "cpu" else 2
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    if kind != "cpu":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", str(int(not falls_back)))
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, LEVELS.get(level, "ORT_ENABLE_ALL"))
    log: list[str] = []
    try:
        with _standard_error(log):
            providers = [(provider, settings or {})]
            if kind == "tensorrt":  # subgraphs that it does not take stay on the device
                providers += [(PROVIDERS["cuda"], {"device_id": (settings or {})["device_id"]})]
            # Left on, its own fallback would make the session anew on the CPU, and say so on standard output alone.
            session = onnxruntime.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
    except Exception as error:  # onnxruntime raises classes of its own, one for each status code
        if is_out_of_memory(error):
            raise
        if _does_not_load(provider, log):  # what remains is the CPU, which the error is about
            raise Unavailable(f"lowering 'onnxruntime' on {kind}: {provider} does not load: {_reason(log)}") from error
        to_do = "; `onnxruntime:fallback=cpu` allows it" if "fallback to CPU EP" in str(error) else ""
        raise Unsupported(f"onnxruntime: {first_line(error)}{to_do}") from error
    if session.get_providers()[0] != provider:
        raise Unavailable(f"lowering 'onnxruntime' on {kind}: {provider} does not load: {_reason(log)}")
    return session


@contextlib.contextmanager
def _standard_error(lines: list[str]) -> Iterator[None]:
    """What is written to standard error meanwhile, by libraries too: afterwards it is in `lines`, and there."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            text = file.read().decode(errors="replace")
            lines += text.splitlines()
            sys.stderr.write(text)


def _does_not_load(provider: str, log: list[str]) -> bool:
    return any(f"Failed to create {provider}" in line for line in log)


def _reason(log: list[str]) -> str:
    """Why a provider does not load: the first error in a log of onnxruntime's, without its place in the source."""
    errors = [line for line in log if "[E:onnxruntime" in line] or log[-1:]
    plain = re.sub(r"\x1b\[[\d;]*m", "", errors[0]).strip() if errors else "it does not say why"
    return plain.rpartition("with error: ")[2]


def _nodes(session: Any) -> dict[str, list[str]]:
    """The nodes that run by each provider; nothing from an onnxruntime that does not tell."""
    nodes: dict[str, list[str]] = {}
    if hasattr(session, "get_provider_graph_assignment_info"):
        for part in session.get_provider_graph_assignment_info():
            nodes.setdefault(part.ep_name, []).extend(node.name or node.op_type for node in part.get_nodes())
    return nodes


def _assigned(session: Any) -> Proof:
    """How many nodes run by each provider, and which do not by the first. Unsupported where it takes none at all."""
    nodes, provider = _nodes(session), session.get_providers()[0]
    if nodes and provider not in nodes:
        raise Unsupported(f"onnxruntime: {provider} takes no node of this graph: it would run by {', '.join(nodes)}")
    left = [name for other, names in nodes.items() if other != provider for name in names]
    return {"nodes": {name: len(of) for name, of in nodes.items()}, "fell_back": left}


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
