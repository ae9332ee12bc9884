"""Every axis and measuring setting, declared once: type, default, bounds, help.

The command line's options, the keys of a sweep file, the keywords of `mixprof.sweep` and the list in docs/axes.md
follow from the fields of `Axes` and `Measure`.
"""

from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal, TypeVar

from mixprof.data.case import QUANTIZED, STEP, STEPS
from mixprof.data.errors import UsageError
from mixprof.lowerings import LOWERINGS, steps
from mixprof.plan.values import (
    BYTES,
    DEGREES,
    DEVICE,
    NAME,
    RESOLUTION,
    SECONDS,
    SHARE,
    SWITCH,
    Kind,
    one_of,
    whole_number,
)

Scope = Literal["any", "launches"]  # which commands have it: all that time, or those with launches
Default = TypeVar("Default")

DTYPES = ("float32", "tf32", "float16", "bfloat16")
LAYOUTS = ("contiguous", "channels_last")
USUAL_LOWERING = "eager"
USUAL_LAYOUT = "channels_last"
SIDES = {"network": 224, "mixer": 56}  # of the usual resolution
QUICK, USUAL, PUBLICATION = 1, 3, 8  # launches


def usual_layouts(device: str) -> tuple[str, ...]:
    """On a GPU both, the usual one first: which is better there depends on the kernels that each gets."""
    return (
        (USUAL_LAYOUT,)
        if device == "cpu"
        else (USUAL_LAYOUT, *(layout for layout in LAYOUTS if layout != USUAL_LAYOUT))
    )


def usual_dtype(device: str, step: str = STEP) -> str:
    return "float32" if device == "cpu" else "float16" if step == STEP else "amp_float16"


@dataclass(frozen=True)
class Setting:
    """One axis or measuring setting."""

    name: str
    kind: Kind
    help: str
    default: str  # in words
    scope: Scope

    @property
    def option(self) -> str:
        return f"--{self.name.replace('_', '-')}"

    @property
    def words(self) -> str:
        """What it is for and what it takes."""
        return self.help if self.kind in (NAME, SWITCH) else f"{self.help}: {self.kind.expected}"

    @property
    def is_switch(self) -> bool:
        return self.kind is SWITCH


def setting(default: Default, kind: Kind, help: str, words: str | None = None, scope: Scope = "any") -> Default:
    """A field of `Axes` or `Measure`. words: the default for people, where the value does not say it."""
    declared: Default = field(default=default, metadata={"kind": kind, "help": help, "words": words, "scope": scope})
    return declared


@dataclass(frozen=True)
class Axes:
    """A product of experiments. None stands for the default of the model or the device."""

    models: tuple[str, ...] = setting(
        (), NAME, "names, timm:NAME, package.module:factory, net.onnx, net.pt, net.pt2 or net.plan", "none"
    )
    lowerings: tuple[str, ...] | None = setting(
        None, NAME, f"{', '.join(LOWERINGS)}, options after colons", USUAL_LOWERING
    )
    devices: tuple[str, ...] | None = setting(None, DEVICE, "where it runs", "the first CUDA device, else cpu")
    dtypes: tuple[str, ...] | None = setting(
        None,
        one_of(*DTYPES, *steps.MIXED, *QUANTIZED),
        "element type; float32 leaves TF32 off; amp_* to train",
        f"{usual_dtype('cpu')} on a CPU, {usual_dtype('cuda:0')} on CUDA",
    )
    layouts: tuple[str, ...] | None = setting(
        None,
        one_of(*LAYOUTS),
        "of a network's input and convolution weights",
        f"{USUAL_LAYOUT}, or contiguous where a module cannot take it; on a GPU both",
    )
    modes: tuple[str, ...] = setting(("hot",), one_of("hot", "cold"), "cold flushes caches before each sample")
    steps: tuple[str, ...] = setting((STEP,), one_of(*STEPS), "a forward alone, or a training step or a part of it")
    batches: tuple[int, ...] | None = setting(None, whole_number(1), "images in one forward", "1")
    resolutions: tuple[tuple[int, int], ...] | None = setting(
        None,
        RESOLUTION,
        "pixels of a network, positions of a mixer",
        ", ".join(f"{side} for {kind}s" for kind, side in SIDES.items()),
    )
    windows: tuple[int, ...] = setting((7,), whole_number(1), "side of the window or kernel")
    channels: tuple[int, ...] = setting((96,), whole_number(1), "of a mixer, 32 for each head")


@dataclass(frozen=True)
class Measure:
    """How every case of a run is measured."""

    launches: int | None = setting(
        None,
        whole_number(1),
        "worker processes for each case",
        f"{USUAL}; {QUICK} with --quick, {PUBLICATION} with --publication",
        "launches",
    )
    quick: bool = setting(False, SWITCH, "one short launch a case", scope="launches")
    publication: bool = setting(False, SWITCH, "eight launches, narrow intervals", scope="launches")
    seconds: float | None = setting(
        None, SECONDS, "sampling in one launch's steady state, at most", "10; 1 with --quick", "launches"
    )
    timeout: float = setting(600.0, SECONDS, "for one launch, building included")
    seed: int = setting(0, whole_number(0), "of the order of cases")
    threads: int | None = setting(None, whole_number(1), "of the CPU, for every lowering", "one for each core")
    allocator: str = setting("pinned", one_of("pinned", "system"), "pinned keeps its memory between samples")
    formulations: str = setting(
        "measured", one_of("measured", "usual"), "of our models: the fastest here, found before a case, or a table's"
    )
    energy: bool = setting(False, SWITCH, "joules per image, some seconds more a launch", scope="launches")
    thermal_headroom: float | None = setting(
        None,
        DEGREES,
        "wait before a launch until the GPU is so far below where it slows down, two minutes at most",
        "no waiting",
    )
    layers: bool = setting(
        False,
        SWITCH,
        "one more launch per engine or eager case: where its time goes, by role and module",
        scope="launches",
    )
    trace: bool = setting(
        False, SWITCH, "a Perfetto trace of one forward of each case, in the run's traces", scope="launches"
    )
    max_lost_cpu: float = setting(0.1, SHARE, "of a launch's CPU time that others may take before it is repeated")
    calibration: str | None = setting(
        None,
        NAME,
        "what int8 and fp8 are calibrated on: FILE.npz, a folder of images, or random",
        "none: they need it",
        "launches",
    )
    max_memory: int | None = setting(
        None, BYTES, "that a case may use beyond an idle worker, on the CPU", "this machine's memory", "launches"
    )
    require_device: bool = setting(False, SWITCH, "a CUDA device must work here: an error, and no CPU in its place")
    allow_shared_gpu: bool = setting(False, SWITCH, "compare though processes of others compute on the GPU")

    @property
    def rounds(self) -> int:
        return self.launches or (QUICK if self.quick else PUBLICATION if self.publication else USUAL)


def table(declared: type[Any]) -> dict[str, Setting]:
    """The settings among the fields of a class, by name."""
    settings = {}
    for axis in fields(declared):
        if axis.default is not MISSING and axis.metadata:
            first = axis.default[0] if isinstance(axis.default, tuple) and axis.default else axis.default
            words = "no" if first is False else f"{first:g}" if isinstance(first, float) else str(first)
            metadata = {**axis.metadata, "default": axis.metadata["words"] or words}
            settings[axis.name] = Setting(axis.name, *(metadata[name] for name in ("kind", "help", "default", "scope")))
    return settings


AXES: dict[str, Setting] = table(Axes)
MEASURE: dict[str, Setting] = table(Measure)


def parse_axis(name: str, value: object, where: str) -> tuple[Any, ...]:
    """One axis from "1,2,4", a value or a list; `where` names its place in an error."""
    items = value.split(",") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [value]
    if not items:
        raise UsageError(f"{where}: got an empty list, expected at least one value")
    return tuple(AXES[name].kind.parse(item.strip() if isinstance(item, str) else item, where) for item in items)
