"""Modules of a case: made by a factory, read from a file, in eval mode, with what their forward is called with."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib
import inspect
import io
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from mixprof import lowerings
from mixprof.data.case import Case
from mixprof.data.errors import Unsupported, one_line
from mixprof.lowerings import aot
from mixprof.worker import feeds, options
from mixprof.worker.imports import roots
from mixprof.worker.trees import Example

KEYWORDS = ("resolution", "window", "batch", "channels")  # that a factory is called with where it accepts them
PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)  # of which the module underneath is meant
PROBE_S = 10.0  # after which a module that does not end tells nothing
PROBE = (1, 14, 14, 32)  # a mixer's map, by which one is told from a network


@dataclass(frozen=True)
class Built:
    """A module and its example, on the CPU in float32, or on `meta`."""

    module: nn.Module
    example: Example
    trained: tuple[str, ...] = ()  # names of the parameters that its factory leaves to be trained


def resolve(source: Mapping[str, Any]) -> Callable[..., Any]:
    """The factory "module:function"; the user's current folder comes first where the factory is the user's."""
    if source["user"]:
        sys.path[:0] = roots()
        importlib.invalidate_caches()
    name, _, attribute = source["factory"].partition(":")
    factory: Any = importlib.import_module(name)
    for part in attribute.split("."):
        factory = getattr(factory, part)
    if isinstance(factory, nn.Module):  # a module that stands ready, in a factory's place
        module = factory
        return lambda: copy.deepcopy(module)
    made_by: Callable[..., Any] = factory
    return made_by


def accepted(factory: Callable[..., Any]) -> list[str]:
    """The keywords of a case that a factory accepts."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return []
    return [name for name in KEYWORDS if name in parameters]


def kind_of(source: Mapping[str, Any], factory: Callable[..., Any], accepts: list[str]) -> str:
    """ "mixer" for a module that maps (B, H, W, C) to itself, else "network"; a factory's own `kind` decides."""
    stated = source["arguments"].get("kind") or getattr(factory, "kind", None)
    if stated in ("mixer", "network"):
        return str(stated)
    if "channels" not in accepts:
        return "network"
    has_own = inspect.signature(factory).parameters["channels"].default is not inspect.Parameter.empty
    # Whoever must be told its channels and maps nothing that can be seen here is taken for a mixer.
    return _probed(source, factory, accepts) or ("network" if has_own else "mixer")


def _probed(source: Mapping[str, Any], factory: Callable[..., Any], accepts: list[str]) -> str | None:
    """What its module makes of a mixer's map, seen in a child: it may hang, crash or exit. None where it fails."""
    child = os.fork()
    if child == 0:
        code = 2
        with contextlib.suppress(BaseException):
            code = 0 if _maps_to_itself(source, factory, accepts) else 1
        os._exit(code)
    deadline = time.monotonic() + PROBE_S
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    return {0: "mixer", 1: "network"}.get(os.waitstatus_to_exitcode(ended[1]))


def _maps_to_itself(source: Mapping[str, Any], factory: Callable[..., Any], accepts: list[str]) -> bool:
    values = {"resolution": PROBE[1], "window": 7, "batch": PROBE[0], "channels": PROBE[3]}
    torch.set_num_threads(1)
    module = factory(**_own_arguments(source, factory), **{name: values[name] for name in accepts})
    _evaluating(module)
    with torch.no_grad():
        output = module(torch.randn(PROBE))
    return isinstance(output, Tensor) and tuple(output.shape) == PROBE


def _own_arguments(source: Mapping[str, Any], factory: Callable[..., Any]) -> dict[str, Any]:
    """The arguments of a model's name; those of a user's factory in the types that its parameters have."""
    if not source["user"]:
        return dict(source["arguments"])
    given = {name: value for name, value in source["arguments"].items() if name != "kind"}
    return {name: options.typed(name, value, options.kinds_of(factory, name)) for name, value in given.items()}


def build(source: Mapping[str, Any], case: Case, device: str = "cpu") -> Built:
    """Make a case's module in its published form, float32, in eval mode, with its example.

    Factories draw from seeded generators, so that processes agree. Unsupported for a value that the model cannot have.
    """
    seed = feeds.seed_of(case)
    torch.manual_seed(seed)
    random.seed(seed)
    height, width = case.resolution
    values = {
        "resolution": height if height == width else (height, width),
        "window": case.window,
        "batch": case.batch,
        "channels": case.channels,
    }
    keywords = {name: values[name] for name in source["accepts"]}
    factory = resolve(source)
    try:
        with torch.device(device if not source["user"] else "cpu"):
            made = factory(**_own_arguments(source, factory), **keywords)
    except ValueError as error:
        raise Unsupported(f"{case.model}: {error}") from error
    except TypeError as error:
        if "required" not in str(error):
            raise
        raise Unsupported(f"{case.model}: {error}: give it as {case.model}:name=value") from error
    module, example = _as_module(made, case)
    trained = tuple(name for name, each in module.named_parameters() if each.requires_grad)
    _evaluating(module)
    lazy = any(is_lazy(parameter) for parameter in module.parameters())
    example = example or feeds.example_of(module, source, case, "cpu" if lazy else device)
    if lazy:
        _first_forward(module, example, case)
    return Built(module, example, trained)


def _as_module(made: object, case: Case) -> tuple[nn.Module, Example | None]:
    """The module that a factory returned, and the example that came with it, if one did."""
    example = None
    if isinstance(made, (tuple, list)) and made and not isinstance(made[0], Tensor):
        if len(made) != 2 or not feeds.has_tensor(made[1]):
            kinds = ", ".join(type(value).__name__ for value in made)
            raise Unsupported(
                f"{case.model}: got {len(made)} values from its factory ({kinds}), expected a torch.nn.Module alone, "
                "or (module, inputs) with tensors as inputs"
            )
        example, made = feeds.example_from(made[1]), made[0]
    if isinstance(made, torch.export.ExportedProgram):
        made = made.module()
    made = getattr(made, "_orig_mod", made)  # of a compiled module: the one underneath
    if isinstance(made, PARALLEL):
        made = made.module
    if not isinstance(made, nn.Module):
        raise Unsupported(
            f"{case.model}: got {type(made).__name__} from its factory, expected a torch.nn.Module: return one, or "
            "name a function of no arguments as call:package.module:function"
        )
    return made, example


def _evaluating(module: nn.Module) -> None:
    """Eval mode, no gradients: kernels are chosen by these even in inference mode."""
    with contextlib.suppress(NotImplementedError):  # of an exported program, which knows no other mode
        module.eval()
    _without_gradients(module)


def _without_gradients(module: nn.Module) -> None:
    for parameter in module.parameters():
        if not is_lazy(parameter):
            parameter.requires_grad_(False)


def _first_forward(module: nn.Module, example: Example, case: Case) -> None:
    """Let lazy layers find their sizes."""
    try:
        with torch.no_grad():
            module(*example.args, **example.kwargs)
    except Exception as error:  # of the user's own code: any
        raise Unsupported(f"{case.model}: its lazy layers found no sizes ({one_line(error)})") from error
    _without_gradients(module)


def to_meta(module: nn.Module) -> nn.Module:
    """Put a module's tensors on `meta`, in place. Tied ones stay one, which Module.to would part."""
    placed: dict[int, Tensor] = {}
    for part in module.modules():
        own: tuple[Any, ...] = (part._parameters, part._buffers)
        for tensors in own:
            for name, tensor in tensors.items():
                if tensor is None:
                    continue
                moved: Tensor = tensor.to("meta")
                moved = nn.Parameter(moved, False) if isinstance(tensor, nn.Parameter) else moved
                tensors[name] = placed.setdefault(id(tensor), moved)
    return module


def specialize(
    source: Mapping[str, Any],
    module: nn.Module,
    lowering: str,
    formulations: Mapping[str, str] | None = None,
    device: str | None = None,
) -> nn.Module:
    """The module in its form for a lowering, if its source knows one. formulations: of its parts, by their paths.

    device: where it will run; None for nowhere. Unsupported where it cannot have that form there.
    """
    if source["specialize"] is None:
        return module
    name, _, attribute = source["specialize"].partition(":")
    arrange: Callable[..., nn.Module] = getattr(importlib.import_module(name), attribute)
    try:
        return arrange(module, lowerings.form_of(lowering), formulations, device)
    except ValueError as error:
        raise Unsupported(f"lowering '{lowering}': {error}") from error


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer by its name, also the buffers that its state_dict leaves out. Ties stay ties."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def load_state(
    module: nn.Module,
    state: Mapping[str, Tensor],
    why: str = "its factory returns another module at each call: seed what it draws from",
) -> None:
    """Fill a module's tensors in place; those on `meta` are replaced. Unsupported, and why, where it has others."""
    own = state_of(module)
    if set(own) != set(state) or any(own[name].shape != state[name].shape for name in own):
        raise Unsupported(why)
    placed: dict[int, Tensor] = {}
    with torch.no_grad():
        for name, value in state.items():
            if not own[name].is_meta:
                own[name].copy_(value)
                continue
            path, _, attribute = name.rpartition(".")
            owner = module.get_submodule(path)
            tensor = placed.setdefault(id(own[name]), value.detach().clone())
            is_parameter = attribute in owner._parameters
            setattr(owner, attribute, nn.Parameter(tensor, requires_grad=False) if is_parameter else tensor)


def load_file(path: str, sha256: str) -> nn.Module:
    """A module from `net.pt`, a TorchScript archive, or `net.pt2`, an exported program or a package of AOTInductor.

    Nothing in it is unpickled.
    Unsupported for what torch cannot load, and for a file of other content than the hash says.
    """
    content = Path(path).read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise Unsupported(f"{path} was changed after this began: begin anew with the file as it is now")
    if aot.is_package(Path(path)):
        return aot.Packaged(str(Path(path).resolve()))
    try:
        with torch.device("cpu"):
            if Path(path).suffix == ".pt2":
                return torch.export.load(io.BytesIO(content)).module()
            module: nn.Module = torch.jit.load(io.BytesIO(content), map_location="cpu")
    except Exception as error:  # of whichever reader: one line
        raise Unsupported(f"got '{path}', {_what(path)} ({one_line(error)[:160]})") from error
    return module


def _what(path: str) -> str:
    if path.endswith(".pt2"):
        return "which is no exported program: write it with torch.export.save"
    return (
        "which is no TorchScript archive: write it with torch.jit.save; for a checkpoint, name a factory that makes "
        "its module and loads it, package.module:factory"
    )
