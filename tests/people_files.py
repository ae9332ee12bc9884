"""Files of people's modules besides ONNX: TorchScript, exported programs, state_dicts, endings that nobody knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

import people_forms

IMAGE, MACS, PARAMS = (2, 3, 32, 32), 2 * (1024 * 8 * 27 + 32), 260  # of people_forms.Small
NOT_MIXERS = "^(?!.*window_attention).*"  # a file's name is no mixer's, misspelt


@dataclass(frozen=True)
class Stored:
    """A file, and what is right for it."""

    path: Path
    params: int | None
    macs: int | None
    status: str = "ok"
    says: str = ""


def small() -> torch.nn.Module:
    torch.manual_seed(0)
    return people_forms.Small().eval()


def scripted(folder: Path) -> Stored:
    path = folder / "scripted.pt"
    torch.jit.script(small()).save(str(path))
    return Stored(path, PARAMS, MACS)


def traced(folder: Path) -> Stored:
    path = folder / "traced.pt"
    torch.jit.trace(small(), torch.randn(IMAGE)).save(str(path))
    return Stored(path, PARAMS, MACS)


def exported(folder: Path) -> Stored:
    path = folder / "exported.pt2"
    torch.export.save(torch.export.export(small(), (torch.randn(IMAGE),)), str(path))
    return Stored(path, PARAMS, MACS)


def exported_with_a_free_batch(folder: Path) -> Stored:
    path = folder / "free.pt2"
    free = ({0: torch.export.Dim.AUTO},)
    torch.export.save(torch.export.export(small(), (torch.randn(IMAGE),), dynamic_shapes=free), str(path))
    return Stored(path, PARAMS, MACS)


def state_dict(folder: Path) -> Stored:
    """Weights alone, under the ending of a model."""
    path = folder / "weights.pt"
    torch.save(small().state_dict(), str(path))
    return Stored(path, None, None, "refused", NOT_MIXERS + "(TorchScript|factory)")


def pickled(folder: Path) -> Stored:
    """A whole module by torch.save, which only executing code would load."""
    path = folder / "pickled.pt"
    torch.save(small(), str(path))
    return Stored(path, None, None, "refused", NOT_MIXERS + "TorchScript")


def junk(folder: Path) -> Stored:
    path = folder / "junk.pt2"
    path.write_bytes(b"junk" * 100)
    return Stored(path, None, None, "refused", NOT_MIXERS + "torch.export")


def engine(folder: Path) -> Stored:
    """What is no engine of any version, under another name for one."""
    path = folder / "net.engine"
    path.write_bytes(b"\x40\x00\x00\x00" + b'{"task": "detect", "batch": 1}'.ljust(64) + b"no engine")
    return Stored(path, None, None, "refused", NOT_MIXERS + "engine")


def unknown(folder: Path) -> Stored:
    path = folder / "net.safetensors"
    path.write_bytes(b"\0" * 16)
    return Stored(path, None, None, "refused", NOT_MIXERS + r"\.onnx.*\.pt2")


MAKERS: dict[str, Callable[[Path], Stored]] = {
    each.__name__: each
    for each in (scripted, traced, exported, exported_with_a_free_batch, state_dict, pickled, junk, engine, unknown)
}
