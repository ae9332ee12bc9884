"""ONNX graphs of modules: opset 20, static shapes, one file for every runtime that takes them."""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixprof.data.case import QUANTIZED
from mixprof.data.errors import Unsupported, first_line, is_out_of_memory, root_cause
from mixprof.lowerings import Target, cast, convert
from mixprof.lowerings.quantize import quantized

OPSET = 20


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
        raise Unsupported(f"torch.onnx.export: {_reason(error, module, inputs)}") from error
    os.replace(temporary, path)


def _reason(error: BaseException, module: nn.Module, inputs: tuple[Tensor, ...]) -> str:
    """What the exporter failed at: the operator that ONNX does not have, and where, or its own words."""
    cause = root_cause(error)
    operator = re.search(r"No ONNX function found for <OpOverload\(op='([^']+)'", str(cause))
    if operator is None:
        return first_line(cause)
    return f"operator {operator[1]} has no form in ONNX{_place(operator[1], module, inputs)}"


def _place(operator: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> str:
    """The module that calls an operator, in words; none where the graph does not tell."""
    with contextlib.suppress(Exception):  # a better word for an error must not become another error
        program = torch.export.export(module, inputs).run_decompositions()
        for node in program.graph.nodes:
            if str(node.target).startswith(f"{operator}."):
                path, kind = list(node.meta["nn_module_stack"].values())[-1]
                return f": module '{path}' ({str(kind).rpartition('.')[2]}) calls it" if path else ""
    return ""


def exported(
    module: nn.Module, inputs: tuple[Tensor, ...], target: Target, dtype: torch.dtype,
    dynamic: tuple[dict[int, Any], ...] | None = None,
) -> tuple[Path, tuple[Tensor, ...], bool]:  # fmt: skip
    """The module's graph in a float type, its inputs in that type, and whether an earlier launch wrote the file.

    For int8 the graph is quantized, and its inputs are float32. dynamic: as of `export`.
    """
    inputs = tuple(cast(x, dtype).contiguous() for x in inputs)
    path = target.cache / f"{target.key}.onnx"
    cached = path.exists()
    if not cached:
        export(convert(module, dtype), inputs, path, dynamic)
    return (quantized(path, inputs, target) if target.dtype in QUANTIZED else path), inputs, cached


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """The module with batch norms folded into the convolutions before them, where torch.fx can trace it.

    Registered models have folded theirs by themselves; without it a bfloat16 export keeps float32 statistics.
    """
    if not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules()):
        return module
    from torch.fx.experimental.optimization import fuse

    with contextlib.suppress(torch.fx.proxy.TraceError, NotImplementedError, TypeError, ValueError):
        folded: nn.Module = fuse(module, inplace=False)
        return folded
    return module
