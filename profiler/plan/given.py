"""Inputs that the command line gives a model, `--input name:1x77:int64`: what they are, and the case that they make."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mixprof.data.errors import UsageError

PICTURES = ("float32", "float16", "bfloat16", "float64", "uint8")
DTYPES = (*PICTURES, "int8", "int16", "int32", "int64", "bool")


@dataclass(frozen=True)
class Fed:
    """One input of a forward."""

    name: str
    dtype: str  # torch's name of its element type
    given: tuple[int, ...]  # its sizes

    @property
    def words(self) -> str:
        return f"{self.name}:{'x'.join(map(str, self.given))}:{self.dtype}"


def parse(texts: Iterable[str]) -> tuple[Fed, ...]:
    """["ids:1x77:int64", "x:1x3x224x224,y:2"] -> inputs, float32 where no dtype stands. UsageError for what is none."""
    inputs: dict[str, Fed] = {}
    for text in (part.strip() for whole in texts for part in whole.split(",")):
        match = re.fullmatch(r"(.+?):([1-9]\d{0,9}(?:x[1-9]\d{0,9})*)(?::(\w+))?", text)
        if match is None:
            raise UsageError(f"--input: got '{text}', expected an input, its sizes and its type like ids:1x77:int64")
        name, sizes, dtype = match[1], match[2], match[3] or "float32"
        if dtype not in DTYPES:
            raise UsageError(f"--input: got type '{dtype}' of input '{name}', expected one of {', '.join(DTYPES)}")
        if name in inputs:
            raise UsageError(f"--input: got input '{name}' twice, expected one for each of the forward's parameters")
        inputs[name] = Fed(name, dtype, tuple(map(int, sizes.split("x"))))
    return tuple(inputs.values())


def parse_shapes(texts: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """["x:1x3x800x1333,ids:1x20"] -> a shape for each input. A name may hold colons, as TensorFlow's do."""
    shapes: dict[str, tuple[int, ...]] = {}
    for text in ",".join(texts).split(",") if texts else ():
        name, _, sizes = text.strip().rpartition(":")
        if not name or not re.fullmatch(r"[1-9]\d{0,9}(x[1-9]\d{0,9})*", sizes):
            raise UsageError(f"--shape: got '{text}', expected an input and its sizes like image:1x3x800x1333")
        if name in shapes:
            raise UsageError(f"--shape: got input '{name}' twice, expected one shape for each input")
        shapes[name] = tuple(map(int, sizes.split("x")))
    return shapes


def channels_last(sizes: Sequence[object]) -> bool:
    """(B, H, W, C): few channels at the end and not in axis 1, or a square map before another last size."""
    _, second, third, last = sizes
    if isinstance(second, int) and isinstance(last, int):
        return (last <= 4 < second) or (second == third != last)
    return isinstance(last, int) and last <= 4


def sizes_of(inputs: Sequence[Fed]) -> tuple[int, tuple[int, int] | None]:
    """The batch that inputs have, and the height and width of the first pictures among them; None without any."""
    for tensor in inputs:
        if len(tensor.given) == 4 and tensor.dtype in PICTURES:
            height, width = tensor.given[1:3] if channels_last(tensor.given) else tensor.given[2:]
            return tensor.given[0], (height, width)
    return (inputs[0].given or (1,))[0], None
