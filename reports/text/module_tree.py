"""A model's costs by module: a line each, indented by its depth."""

from collections.abc import Mapping, Sequence
from typing import Any

DEPTH = 2  # of the tree, where none is asked for
Branch = Mapping[str, Any]  # as a worker has written it: see `metrics.module_tree.Branch`


def pruned(branches: Sequence[Branch], depth: int | None) -> list[Branch]:
    """The branches down to a depth; the whole has depth 0."""
    most = DEPTH if depth is None else depth
    return [branch for branch in branches if depth_of(branch) <= most]


def depth_of(branch: Branch) -> int:
    return len(branch["path"].split(".")) if branch["path"] else 0


def as_text(branches: Sequence[Branch]) -> str:
    """A table; milliseconds in it where they were measured."""
    timed = any(branch["ms"] is not None for branch in branches)
    rows = [("module", "type", "parameters", "MACs", "bytes of outputs", "role", *(["ms"] if timed else []))]
    for branch in branches:
        name = "  " * depth_of(branch) + (branch["path"].rsplit(".", 1)[-1] or "(whole)")
        numbers = [f"{branch[key]:,}" for key in ("params", "macs", "activation_bytes")]
        rows.append((name, branch["type"], *numbers, branch["role"], *([f"{branch['ms']:.3f}"] if timed else [])))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = (0, 1, 5)  # texts
    return "\n".join(
        "  ".join(
            f"{cell:<{width}}" if place in left else f"{cell:>{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
