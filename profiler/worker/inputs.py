"""What a file is fed with: arrays of an .npz, or random ones."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixprof.data.errors import Unsupported
from mixprof.lowerings.onnx_files import read_bytes

if TYPE_CHECKING:
    import numpy as np
    import torch

# Exclusive bounds of random integers. Whatever a graph looks up with them, 0 and 1 exist; bytes are pictures.
BOUNDS = {"uint8": 256, "int8": 2, "int16": 2, "int32": 2, "int64": 2, "bool": 2}


def words(dtype: str, axes: int) -> str:
    """What a random input of this element type holds."""
    if dtype in BOUNDS:
        return "false or true" if dtype == "bool" else f"random integers from 0 to {BOUNDS[dtype] - 1}"
    return "standard normal" + (", each channel with a mean of its own" if axes == 4 else "")


def random(dtype: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """A random input of a file, in its own element type. Floats of four axes are taken for pictures."""
    import torch

    from mixprof.metrics import accuracy

    own: torch.dtype = getattr(torch, dtype)
    if dtype in BOUNDS:
        return torch.randint(BOUNDS[dtype], shape, generator=generator).to(own)
    if len(shape) == 4:
        return accuracy.random_input(shape, generator, images=True).to(own)
    return torch.randn(shape, generator=generator).to(own)


def read(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """The arrays of an .npz and the hash of the file. Nothing in it is executed: arrays of objects are refused."""
    import numpy as np

    content = read_bytes(path)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as found:
            read = {name: found[name] for name in found.files}
            arrays = {name: array.astype(array.dtype.newbyteorder("=")) for name, array in read.items()}
    except (ValueError, OSError, EOFError, KeyError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise Unsupported(
            f"--inputs {path}: got no archive of plain arrays ({said}): write it with numpy.savez"
        ) from error
    return arrays, hashlib.sha256(content).hexdigest()


def check(path: Path, arrays: Mapping[str, np.ndarray], wanted: Mapping[str, Any]) -> None:
    """Names and element types of an .npz against those of the file's inputs (None: not known). Ranks come later."""
    absent, unknown = set(wanted) - set(arrays), set(arrays) - set(wanted)
    if absent or unknown:
        raise Unsupported(
            f"--inputs {path}: got {', '.join(sorted(arrays)) or 'no array'}, expected one array for each input: "
            f"{', '.join(wanted)}"
        )
    for name, array in arrays.items():
        if wanted[name] is None and array.dtype.name not in (*BOUNDS, "float16", "float32", "float64"):
            raise Unsupported(f"--inputs {path}: got {array.dtype} for input '{name}', expected floats or integers")
        if wanted[name] is not None and array.dtype.name != wanted[name]:
            more = ", which numpy has not: use --shape, which draws it" if wanted[name] == "bfloat16" else ""
            raise Unsupported(
                f"--inputs {path}: got {array.dtype} for input '{name}', expected {wanted[name]} as the graph has{more}"
            )
        if not array.size:
            raise Unsupported(f"--inputs {path}: got an empty array for input '{name}', expected sizes from 1 up")
