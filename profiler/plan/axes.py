"""Axes to cases. Runs nothing, imports no model."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mixprof import lowerings
from mixprof.data.case import QUANTIZED, STEP, Case, is_gpu, is_simulated
from mixprof.data.errors import UsageError
from mixprof.lowerings import steps
from mixprof.models.formulations import why_not
from mixprof.models.registry import pinned
from mixprof.plan import files
from mixprof.plan.given import Fed, sizes_of
from mixprof.plan.settings import SIDES, USUAL_LOWERING, Axes, usual_dtype, usual_layouts


@dataclass(frozen=True)
class Source:
    """Where a model comes from and what it can be asked for, without importing it here."""

    factory: str  # "module:function", called in a worker
    arguments: dict[str, Any]  # what it is called with besides the case's own values
    accepts: tuple[str, ...]  # of "resolution", "window", "batch", "channels", "lowering"
    kind: str  # "mixer", "network", "file" or "call"
    specialize: str | None = None  # "module:function" that turns a loaded module into its form for a lowering
    user: bool = False  # imported from the current folder
    check: Callable[..., str | None] = field(default=lambda **_: None, compare=False)  # why values are impossible
    artifact: files.Artifact | None = None  # the file that it is, in a factory's place
    inputs: tuple[Fed, ...] = ()  # that the user gives its forward
    inputs_file: str | None = None  # the .npz that these come from
    inputs_sha256: str | None = None
    facts: dict[str, Any] = field(default_factory=dict, compare=False)  # of a registered model: see models.facts

    @property
    def holds_no_gradient(self) -> bool:
        """Whether it is no module of a factory's, which alone can be trained."""
        return self.kind in ("file", "call") or "sha256" in self.arguments


@dataclass(frozen=True)
class Planned:
    """A case with its model's source; `reason` says why the case cannot be, if it cannot."""

    case: Case
    source: Source
    reason: str | None = None
    layout_is_default: bool = False  # nobody asked for it: contiguous stands in where a module cannot take it


def expand(
    groups: Iterable[Axes], describe: Callable[[str], Source], devices: Sequence[str], *, one_layout: bool = False
) -> list[Planned]:
    """All cases of all groups, each once, in the order given.

    describe: what a model's name stands for. devices: those of this machine, the default one last. one_layout: where
    none is asked for, the usual one alone on a GPU, too.
    An impossible case keeps its reason; UsageError when a model has no possible case at all.
    """
    planned: dict[Case, Planned] = {}
    for group in groups:
        if not group.models:
            raise UsageError("got no model, expected --models or a 'models' key; `mixprof models` lists them")
        for model in group.models:
            source = describe(model)
            for case in _cases_of(group, model, source, devices, one_layout):
                planned.setdefault(case, plan_case(case, source, layout_is_default=group.layouts is None))
    for model in dict.fromkeys(case.model for case in planned):
        reasons = [entry.reason for entry in planned.values() if entry.case.model == model]
        if all(reasons):
            raise UsageError(f"{model}: no valid case is left: {reasons[0]}")
    refuse_mixture({case.device for case in planned})
    return list(planned.values())


def refuse_pinned(groups: Iterable[Axes]) -> None:
    """UsageError for a model whose name asks for a formulation that none of its lowerings holds. Starts nothing."""
    reasons: dict[str, list[str]] = {}
    for group in groups:
        for model, lowering in itertools.product(group.models, group.lowerings or (USUAL_LOWERING,)):
            reasons.setdefault(model, []).append(_why_not_pinned(model, lowering, None))
    for of_model in reasons.values():
        if all(of_model):
            raise UsageError(of_model[0])


def _why_not_pinned(model: str, lowering: str, device: str | None, step: str = STEP) -> str:
    """Why a formulation that a model's name asks for cannot run there; empty if it can."""
    reasons = (why_not(one, lowering.split(":")[0], device, step) for one in pinned(model))
    return next((f"{model}: {reason}" for reason in reasons if reason), "")


def refuse_mixture(devices: set[str]) -> None:
    """UsageError for simulated devices beside real ones: a run of both would compare with no machine."""
    simulated = set(filter(is_simulated, devices))
    if simulated and simulated != devices:
        others = ", ".join(sorted(devices - simulated))
        raise UsageError(f"got {', '.join(simulated)} beside {others}, expected simulated devices alone: use two runs")


def plan_case(case: Case, source: Source, *, layout_is_default: bool = True) -> Planned:
    """The case with its model's source, and with why it cannot be, if it cannot."""
    return Planned(case, source, _why_impossible(case, source), layout_is_default)


def _why_impossible(case: Case, source: Source) -> str | None:
    if case.step != STEP and source.holds_no_gradient:
        return f"{case.model}: got --steps {case.step}, expected inference: a file or a function takes no gradient here"
    if case.step != STEP and is_simulated(case.device):
        return f"{case.device} simulates a forward alone: use --steps inference"
    entry, options = lowerings.parse(case.lowering)
    if entry.cpu_only and is_gpu(case.device) and not is_simulated(case.device):
        return f"lowering '{case.lowering}': got {case.device}, expected cpu: use --devices cpu"
    if reason := steps.why_not(case.step, case.dtype, case.lowering, options, trains=entry.trains):
        return reason
    if case.dtype in QUANTIZED and case.dtype not in entry.quantizes:
        able = [name for name, other in lowerings.LOWERINGS.items() if case.dtype in other.quantizes]
        return f"lowering '{case.lowering}': runs no {case.dtype}: use --lowerings {' or '.join(able)}"
    if source.artifact is not None:
        return files.why_impossible(source.artifact, case)
    if source.inputs:
        return _why_not_given(case, source)
    if reason := _why_not_pinned(case.model, case.lowering, case.device, case.step):
        return reason
    return source.check(resolution=case.resolution, window=case.window, channels=case.channels)


def _why_not_given(case: Case, source: Source) -> str | None:
    """Why a case's batch or resolution is not that of the inputs that the user gives."""
    batch, resolution = sizes_of(source.inputs)
    words = " ".join(tensor.words for tensor in source.inputs)
    if case.batch != batch:
        return f"got batch {case.batch}, which the inputs {words} fix at {batch}: leave out the axis, or give others"
    if resolution is not None and case.resolution != resolution:
        height, width = resolution
        return f"got another resolution than {height}x{width}, which the inputs {words} fix: leave out the axis"
    return None


def _cases_of(axes: Axes, model: str, source: Source, machine: Sequence[str], one_layout: bool) -> Iterable[Case]:
    """The product of a group's axes for one model. An axis that the model does not have collapses."""
    if source.artifact is not None:
        yield from _cases_of_file(axes, model, source.artifact, machine)
        return
    if source.kind == "call":  # no module, which could be lowered or moved: every axis collapses
        for step in axes.steps:
            yield Case(model, "eager", "cpu", "float32", "contiguous", "hot", 1, (1, 1), None, None, step)
        return
    side = SIDES["mixer" if source.kind == "mixer" else "network"]
    batch, sides = sizes_of(source.inputs) if source.inputs else (1, None)
    batches, resolutions = axes.batches or (batch,), axes.resolutions or (sides or (side, side),)
    windows: tuple[int | None, ...] = axes.windows if "window" in source.accepts else (None,)
    channels: tuple[int | None, ...] = axes.channels if "channels" in source.accepts else (None,)
    where = itertools.product(axes.lowerings or (USUAL_LOWERING,), axes.devices or (machine[-1],), axes.steps)
    for lowering, device, step in where:
        dtypes = axes.dtypes or (usual_dtype(device, step),)
        # A graph runtime chooses its own memory layout: the axis would repeat one experiment.
        layouts = axes.layouts or usual_layouts(device)
        one = not lowerings.entry_of(lowering).layouts or (one_layout and axes.layouts is None)
        layouts = layouts[:1] if one else layouts
        product = itertools.product(dtypes, layouts, axes.modes, batches, resolutions, windows, channels)
        for dtype, layout, mode, batch, resolution, window, width in product:
            yield Case(model, lowering, device, dtype, layout, mode, batch, resolution, window, width, step)


def _cases_of_file(axes: Axes, model: str, artifact: files.Artifact, machine: Sequence[str]) -> Iterable[Case]:
    """The product for a file, which brings its own element type and sizes; layout, window and channels collapse."""
    names = axes.lowerings or (artifact.default_lowering,)
    batches = files.batches_of(artifact, axes.batches)
    resolutions = files.resolutions_of(artifact, axes.resolutions)
    for lowering, device in itertools.product(names, axes.devices or (machine[-1],)):
        dtypes = files.dtypes_of(artifact, axes.dtypes, usual_dtype(device))
        for dtype, mode, step, batch, side in itertools.product(dtypes, axes.modes, axes.steps, batches, resolutions):
            yield Case(model, lowering, device, dtype, "contiguous", mode, batch, side, None, None, step)
