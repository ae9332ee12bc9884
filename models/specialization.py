"""The same function, arranged for one lowering."""

from difflib import get_close_matches
from typing import Protocol, runtime_checkable

from torch import nn

from mixprof.models.layers import EagerLinear, Formulated

LOWERINGS = ("eager", "compile", "onnxruntime", "tensorrt", "tensorrt_rtx")
DONE = "specialized_for"  # the attribute that notes it on a module


@runtime_checkable
class Specializable(Protocol):
    """A part of a model that differs between lowerings."""

    def specialize(self, lowering: str) -> None: ...


@runtime_checkable
class Resizable(Protocol):
    """A part of a model that was built for one resolution and can do without."""

    def free_resolution(self) -> None: ...


def specialize(module: nn.Module, lowering: str) -> nn.Module:
    """Fold the batch norms of a published module and give its mixers the formulation that suits the lowering.

    Works in place, in any float dtype, and returns the module. A name with options ("compile:max-autotune") counts
    by what stands before the colon, but for "resolutions=", which asks for a module that takes any resolution.
    Raises ValueError for an unknown lowering, for a module that already is specialized for another one, and for
    one that is built for its resolution and asked to take any.
    """
    name = lowering.split(":")[0]
    if name not in LOWERINGS:
        near = get_close_matches(name, LOWERINGS) or LOWERINGS
        raise ValueError(f"got lowering {lowering!r}, expected one like {', '.join(near)}")
    done = getattr(module, DONE, None)
    if done == name:
        return module
    if done is not None:
        raise ValueError(f"got a module specialized for {done!r}, cannot make it {name!r}: build it with lowering=None")
    for part in list(module.modules()):
        if isinstance(part, Specializable):
            part.specialize(name)
    if name == "eager":
        use_eager_linears(module)
    if any(option.startswith("resolutions=") for option in lowering.split(":")[1:]):
        free_resolution(module)
    setattr(module, DONE, name)
    return module


def free_resolution(module: nn.Module) -> None:
    """Let a module take inputs of any resolution, in place. ValueError names a part that is built for one."""
    for part in module.modules():
        if isinstance(part, Resizable):
            part.free_resolution()
        elif hasattr(part, "resolution"):
            raise ValueError(f"{type(part).__name__} is built for one resolution: its engine cannot vary it")


def use_eager_linears(module: nn.Module) -> None:
    """Exchange every Linear inside a module for an EagerLinear of the same parameters."""
    for part in list(module.modules()):
        for name, child in part.named_children():
            if type(child) is nn.Linear:
                setattr(part, name, EagerLinear.of(child))


def override(module: nn.Module, formulation: str) -> None:
    """Pin the formulation of every mixer of a module that has a choice; it survives specialize()."""
    for part in module.modules():
        if isinstance(part, Formulated):
            part.override = formulation
