"""One engine for inputs of any height and width: built once, then bound to inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mixprof.data.errors import Unsupported
from mixprof.lowerings import Lowered, Target, aot, cast, compiled, openvino, parse, quantize
from mixprof.lowerings import onnxruntime as ort
from mixprof.lowerings.eager import of_function, place
from mixprof.lowerings.onnx_export import exported
from mixprof.machine import devices
from mixprof.machine.process import torch_dtype

if TYPE_CHECKING:
    from mixprof.lowerings.aot import Axes

Inputs = tuple[Tensor, ...]
Bind = Callable[[Inputs], Lowered]  # to inputs of whatever height and width. Nothing runs in it


def lower(name: str, module: nn.Module, inputs: Inputs, target: Target) -> Bind:
    """Build one engine with these inputs. Unsupported where the lowering has none of free axes."""
    parse(name)
    if target.name not in FREE:
        raise Unsupported(f"lowering '{name}': has no engine of free height and width here, as {', '.join(FREE)} have")
    return FREE[target.name](module, inputs, target)


def axes(inputs: Inputs, target: Target) -> Axes:
    """For torch.export: height and width of each input vary, in (B, 3, H, W) of images, else in (B, H, W, C)."""
    from torch.export import Dim

    if any(x.dim() != 4 for x in inputs):
        raise Unsupported(f"lowering '{target.name}': free height and width are those of inputs with four axes")
    return tuple(dict.fromkeys((2, 3) if target.images else (1, 2), Dim.DYNAMIC) for _ in inputs)


def _eager(module: nn.Module, inputs: Inputs, target: Target) -> Bind:
    module, inputs = place(module, inputs, target)
    module(*inputs)
    return _of_torch(module, target)


def _compile(module: nn.Module, inputs: Inputs, target: Target) -> Bind:
    """Sizes are symbols. What torch compiles anew for another size counts as a compilation."""
    module, inputs = place(module, inputs, target)
    mode = next((name for name in target.options if name in compiled.MODES), "default")
    counted = compiled.Counted("compile")
    run = torch.compile(module, dynamic=True, mode=mode)
    run(*inputs)
    devices.of(target.device).synchronize()
    return _of_torch(run, target, **counted.details(mode))


def _aot(module: nn.Module, inputs: Inputs, target: Target) -> Bind:
    import torch._inductor

    module, inputs = place(module, inputs, target)
    path = target.cache / f"{target.key}.pt2"
    aot.package(module, inputs, path, target, axes(inputs, target))
    return _of_torch(torch._inductor.aoti_load_package(str(path)), target, artifact_bytes=path.stat().st_size)


def _of_torch(run: Callable[..., object], target: Target, **details: Any) -> Bind:
    def bind(inputs: Inputs) -> Lowered:
        placed = place(nn.Identity(), inputs, target)[1]
        return of_function(lambda: run(*placed), 0.0, **details)

    return bind


def _onnxruntime(module: nn.Module, inputs: Inputs, target: Target) -> Bind:
    """One session, whose outputs it allocates where their size is free."""
    dtype = torch_dtype(target.dtype)
    path, _, _ = exported(module, inputs, target, dtype, axes(inputs, target))
    session = ort.session_for(path, target)
    proof = ort.integers(path, target) if target.dtype == "int8" else {}

    def bind(inputs: Inputs) -> Lowered:
        inputs = tuple(cast(x, dtype).contiguous() for x in inputs)
        lowered = ort.bound(session, inputs, target, proof=proof, artifact_bytes=path.stat().st_size)
        return quantize.with_definition(lowered, path, inputs) if proof else lowered

    return bind


def _openvino(module: nn.Module, inputs: Inputs, target: Target) -> Bind:
    """One request, which is given each input's tensor before it runs."""
    path, inputs, _ = exported(module, inputs, target, torch.float32, axes(inputs, target))
    request, proof = openvino.requested(path, target)

    def bind(inputs: Inputs) -> Lowered:
        inputs = tuple(cast(x, torch.float32).contiguous() for x in inputs)
        tensors = [openvino.tensor_of(x) for x in inputs]

        def run() -> object:
            for index, tensor in enumerate(tensors):
                request.set_input_tensor(index, tensor)
            return request.infer(share_outputs=True)

        def read_all() -> list[Tensor]:
            run()
            return [openvino.to_torch(request.get_output_tensor(n)) for n in range(len(request.model_outputs))]

        details: dict[str, Any] = {"proof": proof, "artifact_bytes": path.stat().st_size, "read_all": read_all}
        lowered = Lowered(run, lambda: read_all()[0], 0.0, runs_in_torch=False, **details)
        return quantize.with_definition(lowered, path, inputs) if target.dtype == "int8" else lowered

    return bind


FREE: dict[str, Callable[[nn.Module, Inputs, Target], Bind]] = {
    "eager": _eager,
    "compile": _compile,
    "aot": _aot,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}
