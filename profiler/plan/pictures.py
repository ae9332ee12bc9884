"""Which axes of an input of a file are those of pictures: of a batch of them, or of one without a batch."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mixprof.plan.given import channels_last

NAMES = re.compile("ima?ge?|pict|photo|frame|pixel", re.I)
Size = int | str | None  # of an axis: a number, a name that it shares with other axes, or nothing at all


@dataclass(frozen=True)
class Input:
    """One input of a file."""

    name: str
    dtype: str  # torch's name of its element type
    declared: tuple[Size, ...]  # as the graph has it
    given: tuple[int, ...] | None = None  # by --shape or --inputs
    values: str = ""  # what it will hold, in words


@dataclass(frozen=True)
class Axes:
    """Which axes of the input that leads are a case's batch, height and width; None for one that it has not."""

    batch: int | None = None
    height: int | None = None
    width: int | None = None

    def sizes(self, batch: int, resolution: tuple[int, int]) -> dict[int, int]:
        """The size of each of these axes in a case."""
        named = zip((self.batch, self.height, self.width), (batch, *resolution), strict=True)
        return {axis: size for axis, size in named if axis is not None}


def of_pictures(declared: Input, sizes: Sequence[Size]) -> Axes | None:
    """The axes of an input of these sizes that holds pictures, or one picture; None where it plainly holds none."""
    if len(sizes) == 4:
        return Axes(0, 1, 2) if channels_last(sizes) else Axes(0, 2, 3)
    # Three channels are one picture's where its sides are free, or its name says so; else a batch of three.
    free = not any(isinstance(side, int) for side in declared.declared[1:])
    if len(sizes) == 3 and declared.declared[0] == 3 and (free or NAMES.search(declared.name)):
        return Axes(height=1, width=2)
    if len(sizes) == 3 and declared.declared[2] == 3 and declared.dtype == "uint8":
        return Axes(height=0, width=1)  # of floats it could be points in space
    return None
