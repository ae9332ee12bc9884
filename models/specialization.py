"""The same function, arranged for one lowering."""

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Protocol, runtime_checkable

from torch import nn

from mixprof.models.formulations import (
    CPP_LINEAR,
    POINTWISE,
    PUBLISHED,
    TRITON,
    formulations_of,
    why_not,
)
from mixprof.models.kernels import triton
from mixprof.models.kernels.cpu.linear import CppLinear
from mixprof.models.layers import EagerLinear, Formulated, PointwiseLinear
from mixprof.models.registry import MODELS

LOWERINGS = ("eager", "compile", "onnxruntime", "tensorrt", "tensorrt_rtx")
DONE = "specialized_for"  # the attribute that notes it on a module
ARRANGED = "arranged_as"  # that which notes a formulation on a part, as asked for or as it runs
KINDS: dict[str, type[PointwiseLinear]] = {POINTWISE: PointwiseLinear, CPP_LINEAR: CppLinear}
LINEAR = "linear"  # the one mixing of parts that mix channels alone
# Every part of a model that offers formulations, by its class.
OFFERED: dict[str, tuple[str, ...]] = {
    **{entry.factory: entry.formulations for entry in MODELS.values() if entry.kind == "mixer"},
    **{f"mixprof.models.layers:{name}": formulations_of([LINEAR], published=False) for name in ("Mlp", "PatchMerging")},
}


@runtime_checkable
class Specializable(Protocol):
    """A part of a model that differs between lowerings."""

    def specialize(self, lowering: str) -> None: ...


@runtime_checkable
class Resizable(Protocol):
    """A part of a model that was built for one resolution and can do without."""

    def free_resolution(self) -> None: ...


def specialize(
    module: nn.Module, lowering: str, formulations: Mapping[str, str] | None = None, device: str | None = None
) -> nn.Module:
    """Fold the batch norms of a published module and give its parts the formulations that suit the lowering.

    formulations: of parts, by their paths; a part that is not among them gets the usual one. device: where it will
    run, None for nowhere. Works in place, in any
    float dtype, and returns the module. A name with options ("compile:max-autotune") counts
    by what stands before the colon, but for "resolutions=", which asks for a module that takes any resolution.
    Raises ValueError for an unknown lowering, for a module that already is specialized for another one, for
    one that is built for its resolution and asked to take any, and for a kernel that is none of the device.
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
    parts = parts_of(module)
    inside = {id(inner) for part in parts.values() for inner in part.modules()}
    for part in [part for part in module.modules() if id(part) not in inside]:
        if isinstance(part, Specializable):
            part.specialize(name)
    for path, part in parts.items():
        formulation = getattr(part, ARRANGED, None) or (formulations or {}).get(path)
        if formulation and device and mixing_of(formulation) == TRITON and not device.startswith("cuda"):
            raise ValueError(f"got formulation {formulation!r} on {device}, expected a CUDA device: it is for no other")
        arrange(part, name, formulation)
    if name == "eager":
        use_linears(module, EagerLinear, inside)
    if any(option.startswith("resolutions=") for option in lowering.split(":")[1:]):
        free_resolution(module)
    setattr(module, DONE, name)
    return module


def parts_of(module: nn.Module) -> dict[str, nn.Module]:
    """The parts of a module that offer formulations, by their paths; none inside another."""
    parts: dict[str, nn.Module] = {}
    for path, part in module.named_modules():
        within = any(path.startswith(f"{outer}." if outer else "") for outer in parts)
        if not within and offered(part):
            parts[path] = part
    return parts


def offered(part: nn.Module) -> tuple[str, ...]:
    """The formulations of a part, the one that is asked for alone where there is one; none for no such part."""
    names = OFFERED.get(f"{type(part).__module__}:{type(part).__qualname__}", ())
    mixing = next((one.override for one in part.modules() if isinstance(one, Formulated)), None)
    return tuple(name for name in names if mixing is None or mixing_of(name) == mixing)


def mixing_of(formulation: str) -> str:
    """How a formulation mixes positions, whatever its Linears run as."""
    return formulation.partition("+")[0]


def linear_of(formulation: str) -> str:
    """What the Linears of a formulation run as, one of LINEARS."""
    return formulation.removeprefix(mixing_of(formulation))


def arrange(part: nn.Module, lowering: str, formulation: str | None) -> None:
    """Arrange one part for a lowering in a formulation; None: the usual one. ValueError where it cannot run there."""
    if formulation is not None and (reason := why_not(formulation, lowering, None)):
        raise ValueError(reason)
    if formulation is not None and mixing_of(formulation) == TRITON and not triton.is_installed():
        raise ValueError(f"got formulation {formulation!r} without the package triton: pip install 'mixprof[triton]'")
    if formulation is not None:
        setattr(part, ARRANGED, formulation)
    if formulation == PUBLISHED:
        return
    if formulation is not None:
        _pin(part, mixing_of(formulation))
    for inner in list(part.modules()):
        if isinstance(inner, Specializable):
            inner.specialize(lowering)
    if formulation is None and lowering == "eager":
        use_linears(part, EagerLinear)
    elif formulation is not None and (kind := KINDS.get(linear_of(formulation))):
        use_linears(part, kind)


def runs(part: nn.Module) -> str:
    """The formulation that an arranged part runs on its device: the one it was given, or what the usual one is."""
    given = getattr(part, ARRANGED, None)
    if given is not None:
        return str(given)
    weight = next(part.parameters())
    eager = any(isinstance(inner, EagerLinear) for inner in part.modules()) and EagerLinear.suits(weight)
    return getattr(part, "formulation", LINEAR) + (POINTWISE if eager else "")


def formulations_in(module: nn.Module) -> list[str]:
    """Every formulation that a module runs, of its parts and of mixers that offer none."""
    parts = parts_of(module)
    inside = {id(inner) for part in parts.values() for inner in part.modules()}
    own = [str(one.formulation) for one in module.modules() if id(one) not in inside and hasattr(one, "formulation")]
    return sorted({*own, *map(runs, parts.values())})


def free_resolution(module: nn.Module) -> None:
    """Let a module take inputs of any resolution, in place. ValueError names a part that is built for one."""
    for part in module.modules():
        if isinstance(part, Resizable):
            part.free_resolution()
        elif hasattr(part, "resolution"):
            raise ValueError(f"{type(part).__name__} is built for one resolution: its engine cannot vary it")


def use_linears(module: nn.Module, kind: type[PointwiseLinear], but: Collection[int] = ()) -> None:
    """Exchange every Linear inside a module for one of a kind with its parameters, but in modules of these ids."""
    for part in [part for part in module.modules() if id(part) not in but]:
        for name, child in part.named_children():
            if type(child) is nn.Linear:
                setattr(part, name, kind.of(child))


def override(module: nn.Module, option: str, value: str) -> None:
    """Pin how the mixers of a module mix positions, or with the option "formulation" all of it; it survives
    specialize()."""
    if option != "formulation":
        _pin(module, value)
        return
    for part in parts_of(module).values():
        setattr(part, ARRANGED, value if value in offered(part) else LINEAR + linear_of(value))
        if value != PUBLISHED:
            _pin(part, mixing_of(value))


def _pin(module: nn.Module, mixing: str) -> None:
    for part in module.modules():
        if isinstance(part, Formulated):
            part.override = mixing
