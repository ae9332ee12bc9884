"""One forward under torch.profiler, after all timing: which kernels ran, how long, and for which part of the model."""

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from mixprof.data.ran import Kernel, Ran
from mixprof.metrics import kernel_names
from mixprof.metrics.operator_costs import FORMULAS
from mixprof.metrics.operators import Place, role_of

KEPT = 24  # kernels of a record, the longest
SCOPE = "mixprof:"  # of ranges that name a module


@dataclass(frozen=True)
class Event:
    """A kernel of a GPU, or an operator of the host with the kernels that it launched itself."""

    name: str
    us: float  # of a kernel its own time; of an operator that of the host, without those inside it
    on_device: bool = False
    kernels_us: float = 0.0
    within: tuple[str, ...] = ()  # the ranges around it, innermost first


def profiled(forward: Callable[[], object], device: str, trace: Path | None = None) -> list[Event]:
    """The events of one forward. trace: where a trace that Perfetto opens is written, whole or not at all."""
    cuda = device.startswith("cuda")
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as taken:
        forward()
        if cuda:
            torch.cuda.synchronize(device)
    if trace is not None:
        trace.parent.mkdir(exist_ok=True)
        temporary = trace.with_name(f".{os.getpid()}.{trace.name}")
        taken.export_chrome_trace(str(temporary))
        os.replace(temporary, trace)
    return [_event(event) for event in taken.events() or []]


def _event(event: FunctionEvent) -> Event:
    on_device = event.device_type != torch.autograd.DeviceType.CPU
    around: list[str] = []
    outer = event.cpu_parent
    while outer is not None:
        around.append(outer.name)
        outer = outer.cpu_parent
    return Event(
        event.name,
        event.device_time_total if on_device else event.self_cpu_time_total,
        on_device,
        0.0 if on_device else event.self_device_time_total,
        tuple(around),
    )


@contextlib.contextmanager
def scopes(module: nn.Module) -> Iterator[dict[str, Place]]:
    """Ranges of a module's parts, by their names, around whatever they run meanwhile. Never around a timed forward."""
    places: dict[str, Place] = {}
    handles: list[Any] = []
    for path, part in module.named_modules():
        place = places[SCOPE + path] = (path, type(part).__name__, type(part).__module__)
        open_: list[record_function] = []

        def enter(*_: object, name: str = SCOPE + place[0], open_: list[record_function] = open_) -> None:
            open_.append(record_function(name))
            open_[-1].__enter__()

        def leave(*_: object, open_: list[record_function] = open_) -> None:
            open_.pop().__exit__(None, None, None)

        handles += [part.register_forward_pre_hook(enter), part.register_forward_hook(leave)]
    try:
        yield places
    finally:
        for handle in handles:
            handle.remove()


def ran(events: Iterable[Event], places: dict[str, Place] | None = None, *, wide: bool = True) -> Ran:
    """The table of a forward's kernels where there are any, else of its operators, and what their names tell.

    places: of the ranges of modules whose roles are known. wide: float32, in which a product may round to TF32.
    """
    events = [event for event in events if not event.name.startswith(SCOPE)]
    kernels = [event for event in events if event.on_device]
    operators = [event for event in events if not event.on_device]
    shown = kernels or operators
    total = sum(event.us for event in shown) or 1.0
    counts = Counter(event.name for event in shown)
    us = Counter[str]()
    for event in shown:
        us[event.name] += event.us  # type: ignore[assignment]
    names = [event.name for event in events]
    moved = [event for event in shown if kernel_names.moves_layout(event.name)]
    return Ran(
        "kernels" if kernels else "operators",
        len(shown),
        total,
        tuple(Kernel(name, counts[name], one, one / total) for name, one in us.most_common(KEPT)),
        kernel_names.attention(names),
        kernel_names.words(kernel_names.CONVOLUTION, names),
        kernel_names.words(kernel_names.PRODUCT, (event.name for event in shown)),
        kernel_names.tf32(event.name for event in kernels) if wide else None,
        len(moved),
        sum(event.us for event in moved) / total,
        _role_shares(operators, places or {}, on_device=bool(kernels)),
    )


def _role_shares(operators: list[Event], places: dict[str, Place], *, on_device: bool) -> dict[str, float]:
    """The share of each role: of the kernels that its operators launched, or of their own time on a CPU."""
    if not places:
        return {}
    us: dict[str, float] = {}
    for event in operators:
        stack = [places[name] for name in reversed(event.within) if name in places]
        name = event.name.replace("::", ".").removesuffix("_")
        role = role_of(stack, name, "matrix" if name in FORMULAS else "move")
        us[role] = us.get(role, 0.0) + (event.kernels_us if on_device else event.us)
    total = sum(us.values()) or 1.0
    return {role: one / total for role, one in sorted(us.items(), key=lambda item: -item[1])}
