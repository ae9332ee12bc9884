"""Shards: a sweep split by case among machines that do not know of one another."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mixprof.data.case import Case
from mixprof.data.errors import UsageError

EXPECTED = "expected a shard like 3/16, from 1 up to the number of shards"


@dataclass(frozen=True, order=True)
class Shard:
    """One part of a sweep that is split into `of`, the first of them 1."""

    of: int
    index: int

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """ "3/16" -> the third of sixteen. UsageError for another text, and for a shard out of range."""
        match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(f"--shard: got '{text}', {EXPECTED}")
        return cls(int(match[2]), int(match[1]))


def split(seconds: Mapping[Case, float], of: int) -> list[list[Case]]:
    """The cases of each shard. The longest first, each goes to the shard that has the least to do (Graham 1969).

    Only the cases and their seconds decide, not their order: machines that predict alike split alike.
    """
    shards: list[list[Case]] = [[] for _ in range(of)]
    loads = [0.0] * of
    for case in sorted(seconds, key=lambda case: (-seconds[case], case.key)):
        lightest = min(range(of), key=loads.__getitem__)
        shards[lightest].append(case)
        loads[lightest] += seconds[case]
    return shards


def missing(present: Iterable[str]) -> list[str]:
    """The shards that are not among these, of each number of shards; none where all of one number are here."""
    known = {Shard.parse(text) for text in present}
    absent = [
        [str(shard) for index in range(1, of + 1) if (shard := Shard(of, index)) not in known]
        for of in sorted({shard.of for shard in known})
    ]
    return [] if not all(absent) else [shard for shards in absent for shard in shards]
