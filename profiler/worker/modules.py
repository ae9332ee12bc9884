"""Modules of a case: made by a factory, read from a file, in eval mode, with what their forward is called with."""

from __future__ import annotations

import importlib
import inspect
import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from mixprof import lowerings
from mixprof.data.errors import Unsupported, one_line
from mixprof.data.types import Case
from mixprof.worker import feeds
from mixprof.worker.imports import roots
from mixprof.worker.trees import Example

KEYWORDS = ("resolution", "window", "batch", "channels")  # that a factory is called with where it accepts them
PROBE = (1, 14, 14, 32)  # a mixer's map, by which one is told from a network


@dataclass(frozen=True)
class Built:
    """A module and its example, on the CPU in float32, or on `meta`."""

    module: nn.Module
    example: Example


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
        return lambda: module
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
    values = {"resolution": PROBE[1], "window": 7, "batch": PROBE[0], "channels": PROBE[3]}
    try:
        module = factory(**_own_arguments(source), **{name: values[name] for name in accepts})
        _evaluating(module)
        with torch.no_grad():
            output = module(torch.randn(PROBE))
    except Exception:  # of the user's own code: any
        # Whether it maps such a map is not known: who must be told the channels has no number of its own.
        return (
            "mixer"
            if inspect.signature(factory).parameters["channels"].default is inspect.Parameter.empty
            else "network"
        )
    return "mixer" if isinstance(output, Tensor) and tuple(output.shape) == PROBE else "network"


def _own_arguments(source: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in source["arguments"].items() if name != "kind" or not source["user"]}


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
            made = factory(**_own_arguments(source), **keywords)
    except ValueError as error:
        raise Unsupported(f"{case.model}: {error}") from error
    module, example = _as_module(made, case)
    example = example or feeds.example_of(module, source, case)
    if any(is_lazy(parameter) for parameter in module.parameters()):
        _first_forward(module, example, case)
    return Built(module, example)


def _as_module(made: object, case: Case) -> tuple[nn.Module, Example | None]:
    """The module that a factory returned, and the example that came with it, if one did."""
    example = None
    if isinstance(made, (tuple, list)) and made and not isinstance(made[0], Tensor):
        if len(made) != 2:
            raise Unsupported(f"{case.model}: got {len(made)} values from its factory, expected (module, inputs)")
        example, made = feeds.example_from(made[1]), made[0]
    if isinstance(made, torch.export.ExportedProgram):
        return made.module(), example  # in eval mode, and knows no other
    made = getattr(made, "_orig_mod", made)  # of a compiled module: the one underneath
    if not isinstance(made, nn.Module):
        raise Unsupported(
            f"{case.model}: got {type(made).__name__} from its factory, expected a torch.nn.Module: return one, or "
            "name a function of no arguments as call:package.module:function"
        )
    _evaluating(made)
    return made, example


def _evaluating(module: nn.Module) -> None:
    """Eval mode, no gradients: kernels are chosen by these even in inference mode."""
    module.eval()
    module.requires_grad_(False)


def _first_forward(module: nn.Module, example: Example, case: Case) -> None:
    """Let lazy layers find their sizes."""
    try:
        with torch.no_grad():
            module(*example.args, **example.kwargs)
    except Exception as error:  # of the user's own code: any
        raise Unsupported(f"{case.model}: its lazy layers found no sizes ({one_line(error)})") from error
    module.requires_grad_(False)


def specialize(source: Mapping[str, Any], module: nn.Module, lowering: str) -> nn.Module:
    """The module in its form for a lowering, if its source knows one."""
    if source["specialize"] is None:
        return module
    name, _, attribute = source["specialize"].partition(":")
    arrange: Callable[..., nn.Module] = getattr(importlib.import_module(name), attribute)
    try:
        return arrange(module, lowerings.form_of(lowering))
    except ValueError as error:
        raise Unsupported(f"lowering '{lowering}': {error}") from error


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer by its name, also the buffers that its state_dict leaves out. Ties stay ties."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def load_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Fill a module's tensors in place; those on `meta` are replaced. Unsupported where another module was built."""
    own = state_of(module)
    if set(own) != set(state) or any(own[name].shape != state[name].shape for name in own):
        raise Unsupported("its factory returns another module at each call: seed what it draws from")
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


def load_file(path: str) -> nn.Module:
    """A module from `net.pt`, a TorchScript archive, or `net.pt2`, an exported program. Nothing in it is unpickled."""
    try:
        if Path(path).suffix == ".pt2":
            return torch.export.load(path).module()
        module: nn.Module = torch.jit.load(path, map_location="cpu")
    except Exception as error:  # of whichever reader: one line
        raise Unsupported(f"got '{path}', which torch cannot load ({one_line(error)}): {_how(path)}") from error
    _evaluating(module)
    return module


def _how(path: str) -> str:
    if path.endswith(".pt2"):
        return "write it with torch.export.save"
    return "write it with torch.jit.save; for a checkpoint's weights, name a factory that loads them"
