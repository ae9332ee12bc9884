"""The identity of one experiment."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mixprof.data.json import Json, decode, digest

STEP = "inference"
STEPS = (STEP, "forward", "backward", "train")
OF_A_RECIPE = ("optimizer", "update", "checkpoint", "batchnorm")  # options of a lowering that change a training step


def is_gpu(device: str) -> bool:
    """Whether forwards are queued there, so that it has a time of its own; a simulated GPU is one."""
    return device != "cpu"


def is_simulated(device: str) -> bool:
    """Whether nothing that a device tells was measured."""
    return device.startswith("sim:")


QUANTIZED = ("int8", "fp8")  # dtypes of graphs that are quantized on a calibration
ANCHORS = ("anchor_v1", "anchor_v2")  # fixed work that every sweep times; the second, of GPUs, as a CUDA graph


def anchor_of(device: str) -> str:
    return ANCHORS[is_gpu(device)]


@dataclass(frozen=True)
class Case:
    """One point of a sweep. Equal cases are the same experiment."""

    model: str  # a registered name, "timm:NAME" or "package.module:factory", with its options
    lowering: str  # "eager", "compile:max-autotune", ...
    device: str  # "cpu", "cuda:0", "sim:0"
    dtype: str  # "float32" (TF32 off), "tf32", "float16", "bfloat16"; of training "amp_float16", ...
    layout: str  # "contiguous" or "channels_last"
    mode: str  # "hot" or "cold"
    batch: int  # images
    resolution: tuple[int, int]  # height, width: pixels for a network, positions for a mixer
    window: int | None  # side of the window or kernel; None if the model has none
    channels: int | None  # of a mixer's map; None for a network
    step: str = STEP  # "inference", "forward", "backward" or "train"

    def to_json(self) -> Json:
        """Its fields. A step of inference is left out, as before there were others: keys and digests stay."""
        fields = {**dataclasses.asdict(self), "resolution": list(self.resolution)}
        return {name: value for name, value in fields.items() if (name, value) != ("step", STEP)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Case":
        """ValueError for fields that are no case's."""
        return decode(fields, cls)

    @property
    def is_anchor(self) -> bool:
        return self.model in ANCHORS

    @property
    def key(self) -> str:
        """A short name for this experiment: the hash of its fields."""
        return digest(self.to_json())

    @property
    def reference_key(self) -> str:
        """Equal for the cases that share counts, inputs and reference: how and where a case runs is left out."""
        options = self.lowering.split(":")[1:] if self.step != STEP else []
        recipe = ":".join(each for each in options if each.partition("=")[0] in OF_A_RECIPE) or None
        return digest({**self.to_json(), "lowering": recipe, "device": None, "layout": None, "mode": None})

    def label(self) -> str:
        """The case in words, for people: every field that is not the default."""
        height, width = self.resolution
        parts = [self.model, self.lowering, self.device, self.dtype, f"b{self.batch}", f"{height}x{width}"]
        if self.window is not None:
            parts.append(f"k{self.window}")
        if self.channels is not None:
            parts.append(f"c{self.channels}")
        usual = {"layout": self._usual_layout, "mode": "hot", "step": STEP}
        return " ".join([*parts, *(getattr(self, name) for name in usual if getattr(self, name) != usual[name])])

    @property
    def _usual_layout(self) -> str:
        """The only layout of a file or a function, and a module's default."""
        has_own = self.model.startswith("call:") or self.model.endswith((".onnx", ".plan", ".engine"))
        return "contiguous" if has_own else "channels_last"
