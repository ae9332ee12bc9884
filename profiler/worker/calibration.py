"""What int8 is calibrated on: an .npz, a folder of images, or random inputs; and how right a quantized case must be."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mixprof.data.case import QUANTIZED, Case
from mixprof.data.errors import Unsupported
from mixprof.lowerings import Target
from mixprof.lowerings.quantize import Calibration
from mixprof.metrics import Subject, accuracy
from mixprof.worker import feeds, inputs

if TYPE_CHECKING:
    from PIL import Image

RANDOM = "random"
BATCHES = 8  # of random inputs
ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
# Of ImageNet's channels, as torchvision has them.
MEAN, DEVIATION = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], dtype=np.float32)
CROP = 0.875  # of a resized image's side, as is usual for evaluation


def calibrated(target: Target, setting: str | None, fed: Sequence[Tensor], case: Case) -> Target:
    """The target with what int8 is calibrated on."""
    return replace(target, calibration=calibration(setting, fed, case)) if case.dtype in QUANTIZED else target


def calibration(setting: str | None, fed: Sequence[Tensor], case: Case) -> Calibration | None:
    """What a run was told of, for inputs like these; the anchor, which is fixed work, has random ones."""
    if case.is_anchor or setting == RANDOM:
        return _random(fed, case)
    if setting is None:
        return None
    path = Path(setting)
    return _images(path, case) if path.is_dir() else _arrays(path)


def _random(fed: Sequence[Tensor], case: Case) -> Calibration:
    generator = torch.Generator().manual_seed(feeds.seed_of(case) // 3)  # other values than those it is checked with
    arrays = {}
    for place, x in enumerate(fed):
        images = case.channels is None and not case.is_anchor
        drawn = [
            accuracy.random_input(tuple(x.shape), generator, images=images)
            if x.dim() == 4 and x.is_floating_point()
            else inputs.random(str(x.dtype).removeprefix("torch."), tuple(x.shape), generator)
            for _ in range(BATCHES)
        ]
        arrays["" if len(fed) == 1 else str(place)] = torch.cat(drawn)
    words = f"random, {BATCHES} batches"
    return Calibration(arrays, hashlib.sha256(f"{words} {feeds.seed_of(case)}".encode()).hexdigest(), words)


def _arrays(path: Path) -> Calibration:
    arrays, sha256 = inputs.read(path)
    return Calibration({name: torch.from_numpy(array) for name, array in arrays.items()}, sha256, str(path))


def _images(folder: Path, case: Case) -> Calibration:
    """Every image of a folder, resized, cropped in the middle and normalized as for ImageNet. (N, 3, H, W)."""
    from PIL import Image

    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)
    if not paths:
        raise Unsupported(f"--calibration {folder}: got no image, expected files that end in {', '.join(ENDINGS)}")
    height, width = case.resolution
    hashed, pictures = hashlib.sha256(), []
    for path in paths:
        hashed.update(path.read_bytes())
        with Image.open(path) as image:
            pictures.append(_normalized(image.convert("RGB"), height, width))
    return Calibration({"": torch.stack(pictures)}, hashed.hexdigest(), f"{len(paths)} images of {folder}")


def _normalized(image: Image.Image, height: int, width: int) -> Tensor:
    scale = max(height / image.height, width / image.width) / CROP
    sides = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    resized = image.resize(sides, resample=3)  # bicubic
    left, top = (sides[0] - width) // 2, (sides[1] - height) // 2
    pixels = np.asarray(resized.crop((left, top, left + width, top + height)), dtype=np.float32) / 255
    return torch.from_numpy(((pixels - MEAN) / DEVIATION).transpose(2, 0, 1).copy())


def judge(subject: Subject) -> tuple[Subject, float | None]:
    """How far the outputs are from the reference, after one forward in any case; None where there is no reference.

    The subject of int8 has its tolerance and its noise then.
    """
    outputs = subject.lowered.outputs()
    subject = _judged(subject, outputs)
    if subject.expected is None:
        return subject, None
    return subject, accuracy.worst_error(outputs, subject.expected, of_ends=subject.of_ends)


def _judged(subject: Subject, outputs: Sequence[Tensor]) -> Subject:
    """The subject with its signal over noise in the proof, and the tolerance that follows from its own quantization.

    An engine's roundings fall out otherwise than the quantized graph's, each by a step at most, twice the half step
    that quantizing itself may lose: it may be as far from the graph as the graph is from float64.
    """
    lowered = subject.lowered
    if lowered.definition is None or subject.expected is None:
        return subject
    graph = accuracy.worst_error(lowered.definition(), subject.expected, of_ends=subject.of_ends)
    noise = accuracy.sqnr_db(outputs, subject.expected, of_ends=subject.of_ends)
    known = [ratio for ratio in noise if ratio is not None]
    figures = {"sqnr_db_by_output": noise, "sqnr_db": min(known, default=None), "graph_relative_error": graph}
    tolerance = min(subject.tolerance, 2 * graph + accuracy.TOLERANCES["float32"])
    return replace(subject, lowered=replace(lowered, proof={**lowered.proof, **figures}), tolerance=tolerance)
