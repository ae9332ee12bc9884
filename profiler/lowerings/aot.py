"""AOTInductor: torch.export, compiled into a package by a process of its own, loaded here as where it is deployed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mixprof.data.errors import Unsupported, first_line
from mixprof.lowerings import Lowered, Proof, Target, cast
from mixprof.lowerings.cold import order
from mixprof.lowerings.compiled import refuse_noexec
from mixprof.lowerings.eager import of_function, place
from mixprof.machine.process import torch_dtype

FOLDER = "/data/aotinductor/"  # in a package, above its libraries
KERNEL = re.compile(r"\bcpp_fused_\w+(?=\()")
CALL = re.compile(r"AOTI_TORCH_ERROR_CODE_CHECK\(aoti_torch_(?:cpu|cuda|proxy_executor)_(\w+)\(")
Axes = tuple[dict[int, Any], ...]  # of each input, those that vary
PRODUCTS = re.compile(r"mm|linear|convolution|attention|dot")


class Packaged(nn.Module):
    """A package of somebody's own, which is a function and no module that others could lower."""

    def __init__(self, path: str):
        super().__init__()
        self.path = path

    def forward(self, *tensors: Tensor) -> Any:
        raise Unsupported(f"{self.path} is compiled by AOTInductor: use --lowerings aot")


def is_package(path: Path) -> bool:
    """Whether a `.pt2` file holds libraries, in place of an exported program."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(FOLDER in f"/{name}" for name in archive.namelist())


def lower(module: nn.Module, inputs: tuple[Tensor, ...], target: Target) -> Lowered:
    """Compile and package, or take this run's package of an earlier launch, and load it. Option: `max-autotune`."""
    start = time.perf_counter()
    for folder in (target.cache, Path(tempfile.gettempdir())):  # built in one, unpacked in the other
        refuse_noexec("aot", folder)
    if isinstance(module, Packaged):
        os.environ["AOTI_RUNTIME_CHECK_INPUTS"] = "1"  # it would read beyond smaller ones
        return _loaded(Path(module.path), tuple(cast(x, torch_dtype(target.dtype)) for x in inputs), start)
    module, inputs = place(module, inputs, target)
    path = target.cache / f"{target.key}.pt2"
    cached = path.exists()
    if not cached:
        package(module, inputs, path, target)
    return _loaded(path, inputs, start, cached)


def package(
    module: nn.Module, inputs: tuple[Tensor, ...], path: Path, target: Target, axes: Axes | None = None
) -> None:
    """Write the package at `path`, whole or not at all, from a child: this process is one that compiled nothing."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _package(module, inputs, path, target, axes)
            code = 0
        except BaseException as error:
            traceback.print_exc()
            with contextlib.suppress(OSError):
                os.write(writing, first_line(error).encode()[:4000])
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        reason = pipe.read().decode(errors="replace")
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise Unsupported(f"lowering 'aot': {reason or 'the process that compiled it died'}")


def _package(module: nn.Module, inputs: tuple[Tensor, ...], path: Path, target: Target, axes: Axes | None) -> None:
    import torch._inductor
    from torch._inductor import config

    torch.set_num_threads(1)  # a fork has none of its parent's threads
    temporary = path.with_name(f"{os.getpid()}.{path.name}")
    settings = {"max_autotune": True} if "max-autotune" in target.options else {}
    with torch.no_grad(), config.patch({"cpp.threads": target.threads}):
        program = torch.export.export(module, inputs, dynamic_shapes=axes)
        torch._inductor.aoti_compile_and_package(program, package_path=str(temporary), inductor_configs=settings)
    os.replace(temporary, path)


def _loaded(path: Path, inputs: tuple[Tensor, ...], start: float, cached: bool | None = None) -> Lowered:
    """A package as a lowering. cached: whether an earlier launch made it; None: it is somebody's own."""
    import torch._inductor
    from torch._inductor import metrics

    loading = time.perf_counter()
    try:
        run = torch._inductor.aoti_load_package(str(path))
        loaded = time.perf_counter()
        run(*inputs)
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        fed = ", ".join(f"{str(x.dtype).removeprefix('torch.')} {'x'.join(map(str, x.shape))}" for x in inputs)
        raise Unsupported(
            f"{path.name} does not run on {fed} ({first_line(error)}): give others with --input"
        ) from error
    called = time.perf_counter()
    proof = {
        **_proof(path),
        "load_s": loaded - loading,
        "first_call_s": called - loaded,
        "compiled_in_this_process": metrics.generated_kernel_count,
    }
    return of_function(
        lambda: run(*inputs),
        called - start,
        build_cached=cached,
        artifact_bytes=path.stat().st_size,
        proof=proof,
        cold=order("aot", path, inputs, torch.get_num_threads(), {}),
        compilations=lambda: int(metrics.generated_kernel_count),
    )


def _proof(path: Path) -> Proof:
    """What a package runs, from the C++ that lies beside its libraries: its own kernels, and calls of torch's."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if FOLDER in f"/{name}"]
        sources = {name: archive.read(name).decode() for name in names if name.endswith(".cpp")}
        libraries = sum(archive.getinfo(name).file_size for name in names if name.endswith(".so"))
    wrapper = "".join(text for name, text in sources.items() if name.endswith(".wrapper.cpp"))
    calls = Counter(CALL.findall(wrapper))
    return {
        "package_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "library_bytes": libraries,
        "kernels": len(set(KERNEL.findall(wrapper))) or None,  # a package need not come with its source
        "calls": dict(calls),
        "products": {name: count for name, count in calls.items() if PRODUCTS.search(name)},
    }
