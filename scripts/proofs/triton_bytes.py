"""Bytes that the Triton kernels touch, noted by address in the interpreter: rows of JSON. See triton_kernels.py.

In sectors of 32 bytes, which is what a GPU moves. `touched` counts each sector once: DRAM traffic where the L2 cache
keeps what programs share, as it can here (the largest tensor has 1.8 MB). `by programs` counts a sector once for each
program that touches it: what the L2 cache then hands out, where a program's own repeats stay in its L1 cache.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from triton.runtime import interpreter

import triton_launches

SECTOR = 32  # bytes
MB = 1e6


class Noted:
    """Sectors of the loads and stores of a launch, whole and by its programs."""

    def __init__(self) -> None:
        self.touched: set[int] = set()
        self.by_programs = 0
        self._of_program: list[np.ndarray] = []

    def add(self, pointers: np.ndarray, mask: np.ndarray) -> None:
        self._of_program.append(pointers[mask] // SECTOR)

    def end_of_program(self) -> None:
        sectors = np.unique(np.concatenate([*self._of_program, np.empty(0, np.uint64)]))
        self.by_programs += len(sectors)
        self.touched.update(sectors.tolist())
        self._of_program = []


@contextmanager
def noting() -> Iterator[Noted]:
    """Note what every program of the interpreter loads and stores. A value of 2 or 4 bytes never spans two sectors."""
    builder, noted = interpreter.InterpreterBuilder, Noted()
    load, store, place = builder.create_masked_load, builder.create_masked_store, builder.set_grid_idx

    def noted_load(self: Any, pointers: Any, mask: Any, *rest: Any) -> Any:
        noted.add(pointers.data, mask.data)
        return load(self, pointers, mask, *rest)

    def noted_store(self: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        noted.add(pointers.data, mask.data)
        return store(self, pointers, value, mask, *rest)

    def next_program(self: Any, *index: Any) -> Any:
        noted.end_of_program()
        return place(self, *index)

    builder.create_masked_load, builder.create_masked_store, builder.set_grid_idx = (
        noted_load,
        noted_store,
        next_program,
    )
    try:
        yield noted
    finally:
        noted.end_of_program()
        builder.create_masked_load, builder.create_masked_store, builder.set_grid_idx = load, store, place


def rows() -> list[dict[str, Any]]:
    made = []
    for known in triton_launches.launches(lambda *shape: torch.rand(shape).half(), stages=1):
        with noting() as noted:
            known.launch.run()
        touched, by_programs = len(noted.touched) * SECTOR, noted.by_programs * SECTOR
        made.append(
            {
                "kernel": known.name,
                "map": known.map,
                "least MB": f"{known.least_bytes / MB:.2f}",
                "touched MB": f"{touched / MB:.2f}",
                "over least": f"{touched / known.least_bytes:.2f}",
                "by programs MB": f"{by_programs / MB:.2f}",
            }
        )
        print(made[-1], file=sys.stderr)
    return made


if __name__ == "__main__":
    json.dump(rows(), sys.stdout)
