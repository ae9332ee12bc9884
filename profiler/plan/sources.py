"""What a name stands for: one of ours, `timm:NAME`, `package.module:factory`, `call:module:function`, or a file."""

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Protocol

from mixprof import lowerings
from mixprof.data.case import ANCHORS, Case, anchor_of
from mixprof.data.errors import UsageError
from mixprof.data.json import decode
from mixprof.plan import files
from mixprof.plan.axes import Source

ANCHOR = Source("mixprof.plan.anchor:build", {}, (), "mixer")


@dataclass(frozen=True)
class Described:
    """A user's factory, as a worker has seen it."""

    accepts: tuple[str, ...]  # of "resolution", "window", "batch", "channels"
    kind: str  # "mixer" or "network", by what its module maps; "call"


class Registry(Protocol):
    """The package that registered names come from, handed in by the command line."""

    MODELS: dict[str, Any]

    def accepts(self, name: str) -> set[str]: ...

    def kind(self, name: str) -> str: ...

    def facts(self, name: str) -> dict[str, Any]: ...

    def check(
        self, name: str, *, resolution: int | tuple[int, int], window: int | None, channels: int | None
    ) -> str | None: ...


def describe(name: str, registry: Registry, ask: Callable[[Source], Described]) -> Source:
    """The source of a model. ask: keywords and kind of a user's factory, which a worker imports."""
    base, _, rest = name.partition(":")
    if name in ANCHORS:
        return ANCHOR
    if base == "timm":
        return _timm(rest)
    if base == "call":
        return _call(name, ask)
    is_factory = base not in registry.MODELS and rest and "=" not in rest.split(":")[0]
    return _factory(name, ask) if is_factory else _registered(name, registry)


def _registered(name: str, registry: Registry) -> Source:
    if name not in registry.MODELS and (ending := PurePath(name).suffix) and "=" not in ending:
        raise UsageError(f"got '{name}', a file with an unknown ending, expected one of {', '.join(files.ENDINGS)}")
    try:
        accepts = registry.accepts(name)
    except ValueError as error:
        raise UsageError(str(error)) from None

    def check(resolution: tuple[int, int], window: int | None, channels: int | None) -> str | None:
        return registry.check(name, resolution=resolution, window=window, channels=channels)

    # The package's own functions by their names: a worker imports them, this process does not.
    kind, facts, specialize = registry.kind(name), registry.facts(name), "mixprof.models:specialize"
    build, own = "mixprof.models:build", {"name": name}
    return Source(build, own, tuple(sorted(accepts)), kind, specialize, check=check, facts=facts)


def _options(name: str, texts: Iterable[str], form: str) -> dict[str, str]:
    arguments = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise UsageError(f"got '{text}' in model '{name}', expected {form}:name=value")
        arguments[key] = value
    return arguments


def _factory(name: str, ask: Callable[[Source], Described]) -> Source:
    module, attribute, *options = name.split(":")
    arguments = _options(name, options, "package.module:factory")
    bare = Source(f"{module}:{attribute}", arguments, (), "network", user=True)
    described = ask(bare)
    return Source(bare.factory, arguments, described.accepts, described.kind, user=True)


def of_module_file(name: str, sha256: str) -> Source:
    """The source of a module in a file. Its content is among its arguments: another one is another model."""
    return Source("mixprof.worker.modules:load_file", {"path": name, "sha256": sha256}, (), "network")


def _call(name: str, ask: Callable[[Source], Described]) -> Source:
    """A function of no arguments, timed as it is. It is asked for so that one that cannot be imported is said early."""
    module, _, function = name.removeprefix("call:").partition(":")
    if not module or not function.isidentifier():
        raise UsageError(f"got '{name}', expected call:package.module:function")
    ask(Source(f"{module}:{function}", {}, (), "call", user=True))
    return Source("mixprof.worker.callables:calling", {"module": module, "function": function}, (), "call", user=True)


def _timm(name: str) -> Source:
    if importlib.util.find_spec("timm") is None:
        raise UsageError(f"got 'timm:{name}', but timm is not installed: pip install 'mixprof[zoo]'")
    base, *options = name.split(":")
    arguments = _options(f"timm:{name}", options, "timm:NAME")
    return Source("mixprof.worker.zoo:timm_model", {"name": base, "options": arguments}, ("resolution",), "network")


def takes_inputs(source: Source) -> bool:
    """Whether its forward may be given inputs by the user: a module of one's own, of timm's or of a file."""
    return source.artifact is None and source.specialize is None and source.kind != "call" and source != ANCHOR


def anchor_cases(cases: list[Case]) -> list[Case]:
    """The anchor's case for each lowering, device and dtype among these."""
    settings = dict.fromkeys((case.lowering, case.device, case.dtype) for case in cases)
    return [
        Case(anchor_of(setting[1]), *setting, "channels_last", "hot", 1, (56, 56), None, None) for setting in settings
    ]


def of_file(name: str, given: files.Given, inspected: dict[str, Any]) -> Source:
    """The source of a file. inspected: what a worker read of it (`worker.graphs.inspect`)."""
    read = {part: inspected[part] for part in ("sha256", "dtype", "inputs", "inputs_sha256")}
    if name.endswith(files.ENGINES) and given.inputs is None:
        read["inputs"] = [
            {"name": tensor, "dtype": files.UNKNOWN, "declared": shape, "given": shape, "values": ""}
            for tensor, shape in given.sizes.items()
        ]
        if not given.sizes:
            raise UsageError(
                f"got '{name}' without --shape, expected --shape name:1x3x224x224 for each of its inputs, or --inputs: "
                "an engine does not tell them without its device"
            )
    usual = lowerings.usual_for(name)
    more = {"path": name, "lowerings": lowerings.taking(name), "default_lowering": usual, "inputs_file": given.inputs}
    artifact = decode({**read, **more}, files.Artifact)
    files.check_dtypes(artifact, given.fed)
    return Source("", {}, (), "file", artifact=files.with_shapes(artifact, given.sizes))
