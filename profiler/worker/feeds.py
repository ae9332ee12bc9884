"""Inputs of a model's forward: by its factory, its own `example_inputs`, the command line, or by its kind."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mixprof.data.case import Case
from mixprof.data.errors import Unsupported
from mixprof.data.json import digest
from mixprof.metrics import accuracy
from mixprof.worker import inputs
from mixprof.worker.trees import Example

WRITES = "its forward writes into its inputs, and so begins with what the last one left: let it write into a copy"


def seed_of(case: Case) -> int:
    """A seed that is one for a model and its inputs, whatever runs it."""
    return int(digest([case.model, case.resolution, case.window, case.channels]), 16) % 2**63


def _generator(case: Case) -> torch.Generator:
    """What inputs are drawn from. Another seed than the weights': from one seed come the same numbers, so that an input
    would be a row of a matrix, and its product an outlier that no other input has."""
    return torch.Generator().manual_seed(seed_of(case) ^ 1)


def inspect_archive(request: dict[str, Any]) -> dict[str, Any]:
    """Names, element types and sizes of the arrays of an .npz, and its hash."""
    arrays, sha256 = inputs.read(Path(request["inputs"]))
    inputs.check(Path(request["inputs"]), arrays, dict.fromkeys(arrays))
    listed = [{"name": name, "dtype": each.dtype.name, "given": list(each.shape)} for name, each in arrays.items()]
    return {"status": "ok", "inputs": listed, "sha256": sha256}


def example_of(module: nn.Module, source: Mapping[str, Any], case: Case, device: str = "cpu") -> Example:
    """The example of a case: given by the user, by the module, or pictures or a map of the case's sizes.

    device: "meta" for one of the last two kinds without values.
    """
    if source.get("inputs") or source.get("inputs_file"):
        return _given(module, source, case)
    if callable(own := getattr(module, "example_inputs", None)):
        known = {"batch": case.batch, "resolution": case.resolution}
        names = inspect.signature(own).parameters
        return example_from(own(**{name: value for name, value in known.items() if name in names}))
    generator = _generator(case)
    if source["kind"] == "mixer":
        assert case.channels is not None or case.is_anchor
        shape: tuple[int, ...] = (case.batch, *case.resolution, case.channels or 96)
    else:
        shape = (case.batch, 3, *case.resolution)
    images = source["kind"] != "mixer"
    if device == "meta":
        return Example((torch.empty(shape, device="meta"),), images=images)
    return Example((accuracy.random_input(shape, generator, images=images),), images=images)


def has_tensor(value: object) -> bool:
    """Whether a value could be a forward's inputs."""
    return any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(value))


def example_from(value: object) -> Example:
    """What a factory or a module gave: a tensor, arguments in a tuple or list, or keywords in a dict."""
    if isinstance(value, Mapping):
        example = Example((), dict(value))
    else:
        example = Example(tuple(value) if isinstance(value, (tuple, list)) else (value,))
    tensors = example.tensors
    if not tensors:
        raise Unsupported(f"got inputs without a tensor ({type(value).__name__}), expected one, or several, or a dict")
    pictures = len(tensors) == 1 and tensors[0].dim() == 4 and tensors[0].is_floating_point()
    return Example(example.args, example.kwargs, images=pictures)


def _given(module: nn.Module, source: Mapping[str, Any], case: Case) -> Example:
    """Inputs by --input name:sizes:dtype or by --inputs, under the names of forward's parameters."""
    if source.get("inputs_file"):
        arrays, sha256 = inputs.read(Path(source["inputs_file"]))
        if sha256 != source["inputs_sha256"]:
            raise Unsupported(f"{source['inputs_file']} was changed after this began: begin anew with it as it is now")
        tensors = {name: torch.from_numpy(array.copy("C")) for name, array in arrays.items()}
    else:
        generator = _generator(case)
        tensors = {
            given["name"]: inputs.random(given["dtype"], tuple(given["given"]), generator) for given in source["inputs"]
        }
    return _by_name(module, tensors, case)


def _by_name(module: nn.Module, tensors: Mapping[str, Tensor], case: Case) -> Example:
    """Positional where the names lead forward's parameters in their order, else by keyword."""
    names = _parameters(module)
    if names is None or (len(tensors) == 1 and next(iter(tensors)) not in names and len(names) == 1):
        return example_from(tuple(tensors.values()))
    if unknown := [name for name in tensors if name not in names]:
        raise Unsupported(
            f"{case.model}: got input '{unknown[0]}', expected one of its forward's parameters: {', '.join(names)}"
        )
    if list(tensors) == names[: len(tensors)]:
        return example_from(tuple(tensors.values()))
    return example_from(dict(tensors))


def _parameters(module: nn.Module) -> list[str] | None:
    """The names of forward's parameters; None where it takes any."""
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) for parameter in parameters):
        return None
    return [parameter.name for parameter in parameters]


def explain(module: nn.Module, example: Example, error: BaseException) -> str | None:
    """One line on what a forward wants, where its example is not that; None where nothing is known."""
    names, required = _parameters(module), _required(module)
    if isinstance(error, TypeError) and required is not None and len(required) > len(example.tensors):
        options = " ".join(f"--input {name}:1x…" for name in required)
        return f"its forward takes {', '.join(required)}: give {options}, or let its factory return (module, inputs)"
    if example.images and names and "scalar types: Long, Int" in str(error):
        return (
            f"it looks up integers and was given pictures: give --input {names[0]}:1x77:int64, or let its module have "
            "example_inputs(batch, resolution)"
        )
    channels = _first_channels(module)
    if not example.images or channels is None or channels == example.tensors[0].shape[1]:
        return None
    batch, given, height, width = example.tensors[0].shape
    option = f"--input {(names or ['x'])[0]}:{batch}x{channels}x{height}x{width}"
    return f"its first layer takes {channels} channels and the input has {given}: give {option}"


def _required(module: nn.Module) -> list[str] | None:
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return None
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [each.name for each in parameters if each.default is each.empty and each.kind in kinds]


def _first_channels(module: nn.Module) -> int | None:
    """Channels that the first convolution takes."""
    first = next((part for part in module.modules() if isinstance(part, nn.modules.conv._ConvNd)), None)
    return None if first is None else first.in_channels
