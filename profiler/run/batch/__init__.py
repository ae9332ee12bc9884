"""A sweep as so many shards, each a job of a batch system: it goes on where it was when the job is run again."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mixprof.plan.place import Place


@dataclass(frozen=True)
class Batch:
    """The command of a sweep without its place and folder, and where its shards go."""

    command: tuple[str, ...]
    place: Place
    out: Path  # of the merged run

    def folder(self, index: int | str) -> Path:
        """The run folder of a shard."""
        return self.out.with_name(f"{self.out.name}-shards") / str(index)

    def of(self, index: int) -> list[str]:
        """A shard's command, in a folder that is there and may be empty."""
        shard = ("--shard", f"{index}/{self.place.shards}", "--out", str(self.folder(index)), "--resume")
        return [sys.executable, "-m", "mixprof", *self.command, *shard]

    def in_shell(self, index: str) -> str:
        """Shell lines that run the shard with the number that a shell's expression gives."""
        folder = f"{shlex.quote(str(self.folder('.')))}/$shard"
        return (
            f"shard={index}\nmkdir -p {folder}\n"
            f"exec mixprof {join(self.command)} --shard $shard/{self.place.shards} --out {folder} --resume\n"
        )

    @property
    def then(self) -> str:
        """What is to be done when all shards have ended."""
        return f"mixprof merge {shlex.quote(str(self.folder('.')))}/* --out {shlex.quote(str(self.out))} --strict"


def join(words: Sequence[str]) -> str:
    """Words as a shell reads them."""
    return shlex.join(words)
