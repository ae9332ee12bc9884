"""The table of kinds against plain PyTorch: parameters, MACs by hooks, and which dtypes PyTorch itself can run."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

import hook_macs
from people import DTYPES, KINDS, Kind

ALONE = [kind for kind in KINDS if kind.macs is not None and kind.status == ("ok",)]
# What hooks on layers cannot see: products of a forward's own, TorchScript, weights that are frozen in.
BY_HAND = {
    "dynamic_convolution": lambda: 2 * (16 * 16 * 9 * 1024 + 4 * 16 * 16 * 9),
    "unfolding": lambda: 2 * 1024 * 6 * 27,
    "decoder": lambda: 2 * 2 * 24 * 24 * 32,
    "hard_attention": lambda: 2 * 2 * 16**3,
    "parameter_list": lambda: 2 * 72,
    "int8_weights": lambda: 2 * 64 * 6 * 48,
    "two_towers": lambda: 2 * 2 * 32,
    "with_inputs": lambda: 2 * 2 * 32,
    "with_a_tuple": lambda: 2 * 2 * 32,
    "float32_layer": lambda: 2 * 32,
    "weight_norm": lambda: 32 + 4,
    "old_weight_norm": lambda: 32 + 4,
    "orthogonal": lambda: 8**3,  # the base by the exponential
    "guided": lambda: 2 * (1024 * 8 * 27 + 32),
}
UNSEEN = {"scripted", "traced", "frozen", "exported", "exported_module", "data_parallel", "compiled"}


def made(kind: Kind) -> tuple[Any, Any]:
    """The module of a kind as its factory returns it, and its inputs."""
    module, attribute, *options = kind.model.split(":")
    function = getattr(importlib.import_module(module), attribute)
    accepts = inspect.signature(function).parameters
    keywords: dict[str, Any] = {name: int(value) for name, _, value in (each.partition("=") for each in options)}
    keywords |= {"batch": kind.batch} if "batch" in accepts else {}
    keywords |= {"channels": 8} if kind.model.endswith(":mixer") else {}
    torch.manual_seed(0)
    given = function(**keywords)
    given, inputs = given if isinstance(given, tuple) else (given, None)
    return given, inputs if inputs is not None else inputs_of(kind, given)


def ready(kind: Kind) -> tuple[Any, Any]:
    """The module of a kind, in evaluation, and its inputs; layers that learn their widths have learned them."""
    module, inputs = made(kind)
    if isinstance(module, torch.export.ExportedProgram):
        return module.module(), inputs
    if not isinstance(module, torch.fx.GraphModule):
        module.eval()
    if any(isinstance(each, nn.modules.lazy.LazyModuleMixin) for each in module.modules()):
        module(inputs)
    return module, inputs


def inputs_of(kind: Kind, module: Any) -> Any:
    examples = getattr(module, "example_inputs", None)
    if callable(examples):
        return examples(kind.batch, (kind.side, kind.side))
    if kind.options[:1] == ("--input",):
        return tuple(one_input(text) for text in kind.options[1].split(","))
    if kind.model.endswith(":mixer"):
        return torch.randn(kind.batch, kind.side, kind.side, 8)
    # As pictures have them, each channel with a mean of its own: else a kernel predicted from it hardly depends on it.
    return torch.randn(kind.batch, 3, kind.side, kind.side) + torch.randn(kind.batch, 3, 1, 1)


def one_input(text: str) -> Tensor:
    _, sizes, *dtype = text.split(":")
    shape = tuple(map(int, sizes.split("x")))
    return torch.randint(2, shape) if dtype else torch.randn(shape)


def positional(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Inputs as arguments and keywords."""
    if isinstance(inputs, dict):
        return (), inputs
    return (inputs if isinstance(inputs, tuple) else (inputs,)), {}


def run(module: Any, inputs: Any, dtype: torch.dtype) -> Any:
    """A forward with floats of a dtype, weights and inputs both."""
    cast = tree_map_only(Tensor, lambda each: each.to(dtype) if each.is_floating_point() else each, inputs)
    given, keywords = positional(cast)
    with torch.no_grad():
        return module.to(dtype)(*given, **keywords)


@pytest.fixture(autouse=True)
def plain_layers():
    """Layers as they are: the fused fast paths work on packed tensors, which hooks cannot tell the sizes of."""
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(True)


@pytest.mark.parametrize("kind", ALONE, ids=lambda kind: kind.name)
def test_parameters_and_macs_are_what_plain_pytorch_has(kind):
    module, inputs = ready(kind)
    given, keywords = positional(inputs)
    own = next((each.dtype for each in module.parameters()), torch.float32)
    if own in (torch.bfloat16, torch.float64):
        given = tuple(each.to(own) for each in given)
    name = kind.model.split(":")[1]
    macs = hook_macs.count(module, *given, **keywords) if name not in UNSEEN else kind.macs
    assert macs + BY_HAND.get(name, lambda: 0)() == kind.macs
    if kind.params is not None:
        assert sum(each.numel() for each in module.parameters()) == kind.params


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ALONE, ids=lambda kind: kind.name)
def test_a_kind_is_expected_to_be_ok_only_where_plain_pytorch_runs_it(kind, dtype):
    if kind.statuses(dtype) != ("ok",):
        pytest.skip("one of several")
    module, inputs = ready(kind)
    run(module, inputs, getattr(torch, dtype))


def test_the_figures_of_the_list():
    figures = {kind.model: (kind.params, kind.macs) for kind in KINDS if not kind.options}
    assert figures["people_images:tutorial"] == (18_234, 66_600)
    assert figures["people_outputs:dictionary"][1] == 327_680
    assert figures["people_sequences:encoder"][1] == 4_573_646_592
    assert figures["people_images:dynamic_convolution"][1] == 5_621_888
    assert len({kind.model for kind in KINDS}) >= 45
